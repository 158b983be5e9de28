/* The library from C++11: gemma4.h and libgemma4. */
#include "gemma4.h"
#include "use.h"

int main(int argc, char **argv) { return g4_use(argc > 1 ? argv[1] : G4_USE_MODEL); }
