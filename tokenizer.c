/* tokenizer.c - text to token ids and back. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "gemma4.h"
#include "gemma4_internal.h"
