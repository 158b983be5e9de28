/* The library without engine/kernels_simd.h, built in a folder that lacks it, with -DG4_SCALAR_ONLY. */
#define GEMMA4_IMPLEMENTATION
#include "gemma4.h"
#include "use.h"

int main(int argc, char **argv) { return g4_use(argc > 1 ? argv[1] : G4_USE_MODEL); }
