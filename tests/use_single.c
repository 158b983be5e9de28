/* The library as one file, made by `make single`. */
#define GEMMA4_IMPLEMENTATION
#include "gemma4_single.h"
#include "use.h"

int main(int argc, char **argv) { return g4_use(argc > 1 ? argv[1] : G4_USE_MODEL); }
