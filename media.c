/* media.c - files to pixels, samples and frames. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "gemma4.h"
#include "gemma4_internal.h"
