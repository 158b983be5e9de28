/* The library without the vector kernels (engine/kernels_*.h), built in a folder that lacks them, with
 * -DG4_SCALAR_ONLY. */
#define GEMMA4_IMPLEMENTATION
#include "gemma4.h"
#include "use.h"

int main(int argc, char **argv) { return g4_use(argc > 1 ? argv[1] : G4_USE_MODEL); }
