/* chat.c - messages to prompts, replies to parts, JSON. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "gemma4.h"
#include "gemma4_internal.h"
