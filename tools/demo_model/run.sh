#!/bin/sh
# The whole recipe: corpus and tokenizer, training, export, checks. Run from the root of the repository, in an
# environment with tools/demo_model/requirements.txt installed. STEPS, WORKERS and BUILD may be set from outside.
set -eu
STEPS="${STEPS:-9647}"
STEPS_2="${STEPS_2:-2557}"
WORKERS="${WORKERS:-2}"
BUILD="${BUILD:-build/demo_model}"
PYTHON="${PYTHON:-python}"

# glibc returns every large buffer to the system and gets it back page by page: keeping it makes a step 1.4 times faster.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456

"$PYTHON" -m tools.demo_model.tokenizer --out "$BUILD/tokenizer.json"
"$PYTHON" -m tools.demo_model.train --tokenizer "$BUILD/tokenizer.json" --steps "$STEPS" --workers "$WORKERS" --holdout 1 \
    --out "$BUILD/stage-1.pt" --log "$BUILD/stage-1.csv"
# The second stage is about saying "I don't know": a third of its questions are out of scope.
"$PYTHON" -m tools.demo_model.train --tokenizer "$BUILD/tokenizer.json" --steps "$STEPS_2" --workers "$WORKERS" \
    --init "$BUILD/stage-1.pt" --unknown 0.33 --rate 1e-3 --out "$BUILD/model.pt" --log "$BUILD/stage-2.csv"
"$PYTHON" -m tools.demo_model.export --model "$BUILD/model.pt" --tokenizer "$BUILD/tokenizer.json" \
    --out src/bendi/assets/demo.gguf
"$PYTHON" -m tools.demo_model.verify --model "$BUILD/model.pt" --tokenizer "$BUILD/tokenizer.json"
"$PYTHON" -m tools.demo_model.evaluate --internal 1 --styles plain
"$PYTHON" -m tools.demo_model.evaluate --cases tests/demo/heldout.toml
"$PYTHON" -m tools.demo_model.evaluate --table --styles plain
