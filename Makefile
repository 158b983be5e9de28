# gemma4.c. `make help` lists the targets.
#
# -O3: the scalar kernels rely on the compiler's vectoriser.  -ffp-contract=off: a * b + c must round twice wherever the
# source says so, or the same token would get different bits in different loops.  No -march=native: one binary runs on every
# CPU, the vector kernels choose their instructions at run time.  No -ffast-math: it would void NaN checks and the order of sums.
CC       ?= cc
CXX      ?= c++
AR       ?= ar
PYTHON   ?= python3
PREFIX   ?= /usr/local
CFLAGS   ?= -O3 -g
WARN     := -Wall -Wextra -Wpedantic -Wshadow -Wconversion
ALL_CFLAGS := -std=c11 -ffp-contract=off -pthread $(WARN) $(CFLAGS)
LDLIBS   := -lm -lpthread
VERSION  := $(shell sed -n 's/^.define G4_VERSION "\(.*\)"/\1/p' gemma4.h)

LIB_SRC  := tokenizer.c chat.c media.c gemma4.c
HEADERS  := gemma4.h gemma4_internal.h gemma4_simd.h
B        := build
OBJ      := $(LIB_SRC:%.c=$(B)/%.o)

.PHONY: all
all: $(B)/libgemma4.a gemma4 ## build the program and the static library

$(B)/%.o: %.c $(HEADERS) Makefile
	@mkdir -p $(B)
	$(CC) $(ALL_CFLAGS) -fPIC -c $< -o $@

$(B)/libgemma4.a: $(OBJ)
	$(AR) rcs $@ $^

gemma4: $(B)/run.o $(B)/libgemma4.a
	$(CC) $(ALL_CFLAGS) $^ -o $@ $(LDLIBS)

# Tests: tests/test_*.c, each a program that ends with "N passed, N failed".
TESTS := $(patsubst tests/%.c,$(B)/%,$(wildcard tests/test_*.c))
$(B)/test_%: tests/test_%.c tests/test.h $(B)/libgemma4.a
	$(CC) $(ALL_CFLAGS) -I. -Itests $< $(B)/libgemma4.a -o $@ $(LDLIBS)

.PHONY: test
test: all $(TESTS) ## C tests on the golden data: no network, no Python
	@sh tests/run.sh $(TESTS)

.PHONY: clean
clean: ## remove everything built
	rm -rf $(B) gemma4 gemma4_single.h

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24
