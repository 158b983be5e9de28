/* run.c - the command line: the only file that prints, exits or reads the environment. */
#include <stdio.h>

#include "gemma4.h"

int main(void)
{
    printf("gemma4 %s\n", G4_VERSION);
    return 0;
}
