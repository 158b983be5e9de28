/* The library as a header: gemma4.h brings its sources into this file. */
#define GEMMA4_IMPLEMENTATION
#include "gemma4.h"
#include "use.h"

int main(int argc, char **argv) { return g4_use(argc > 1 ? argv[1] : G4_USE_MODEL); }
