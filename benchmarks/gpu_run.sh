#!/usr/bin/env bash
# All that an hour or less on a GPU machine is used for, in stages that may be called one by one, again and again:
#
#   bash benchmarks/gpu_run.sh [install] [jets] [train] [bench] [evaluate] [keep]      (without arguments: all)
#
# install   this package and the wheels of $WHEELS into $WORK/site, without a network
# jets      a converted dataset: $DATA if given, else $NUM_JETS jets simulated on all cores, else the bundled sample
# train     $CONFIG for $TRAIN_SECONDS, from the last checkpoint if there is one
# bench     training, sampling, memory and loader; plain, compiled, with CUDA graphs
# evaluate  $EVALUATE_JETS generated jets against as many held-out ones
# keep      what is worth keeping into $OUT, the weights in parts (PART_BYTES); fails beyond 8 files or 16 MiB a file
#
# A benchmark that fails is noted and the others go on; `keep` runs at the end of every call, whatever happened.
# Environment (defaults below):
#   OUT WORK       folder of what is kept; folder of everything else, which later calls go on from
#   WHEELS         folder of wheels to install, if any
#   DATA HELDOUT   a converted dataset; an HDF5 file or dataset of held-out jets (default: simulated, or the test split)
#   INIT_FROM      a model to start training from
#   SCALE          tiny: everything small, on the CPU, to try the script; TRY_COMPILE=1 tries compilation there too
set -uo pipefail
cd "$(dirname "$0")/.."

SCALE=${SCALE:-full}
WORK=${WORK:-outputs/gpu-work}
OUT=${OUT:-outputs/gpu}
WHEELS=${WHEELS:-}
PYTHON=${PYTHON:-python3}
CONFIG=${CONFIG:-configs/reference-base.yaml}
PART_BYTES=16000000
if [ "$SCALE" = tiny ]; then
  NUM_JETS=${NUM_JETS:-0} HELDOUT_JETS=0 TRAIN_SECONDS=${TRAIN_SECONDS:-400} EVALUATE_JETS=${EVALUATE_JETS:-100}
  TRAINING=(--cpu=true --compile=false --batch_size=8 --max_steps=6 --checkpoint_every=2 --validate_every=3
    --validation_jets=8 --sample_jets=2 --num_workers=1 --log_every=1
    --unet.block_out_channels='[16,16,16]' --trackers=[])
  TURNS=(--cpu --rounds=1 --seconds=0.01)
  BATCHES=(1 2) MEMORY_BATCHES=(4) TRAIN_BATCHES=(4) RECIPE_BATCH=1 CLASSIFIERS=(observables)
  VARIANTS=(plain) BENCH_CONFIG=configs/tiny.yaml EVALUATIONS=2
  [ -n "${TRY_COMPILE:-}" ] && VARIANTS+=(compile)
else
  NUM_JETS=${NUM_JETS:-200000} HELDOUT_JETS=${HELDOUT_JETS:-16000}
  TRAIN_SECONDS=${TRAIN_SECONDS:-900} EVALUATE_JETS=${EVALUATE_JETS:-5000}
  TRAINING=(--trackers=[])
  TURNS=(--rounds=5 --seconds=1)
  BATCHES=(1 64 1024) MEMORY_BATCHES=(64 256 1024) TRAIN_BATCHES=(64 256 1024) RECIPE_BATCH=64
  CLASSIFIERS=(observables voxels)
  VARIANTS=(plain compile graphs) BENCH_CONFIG=$CONFIG EVALUATIONS=20
fi

mkdir -p "$WORK" "$OUT"
WORK=$(cd "$WORK" && pwd) OUT=$(cd "$OUT" && pwd)
RUN=$WORK/run JETS=${DATA:-$WORK/jets} LOG=$WORK/log.txt
export HF_HOME=$WORK/hf HF_HUB_OFFLINE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
export TORCHINDUCTOR_CACHE_DIR=$WORK/inductor PYTHONUNBUFFERED=1
[ -d "$WORK/site" ] && export PYTHONPATH=$WORK/site${PYTHONPATH:+:$PYTHONPATH}
JET=("$PYTHON" -m jet_diffusion)
jet() { "${JET[@]}" "$@"; }
cores() { nproc 2>/dev/null || echo 2; }

# One command with its time; its output goes to the log, without the steps of progress bars, and its end to the screen.
step() {
  local name=$1 begun=$SECONDS status
  shift
  echo "== $name: $*" >>"$LOG"
  "$@" >"$WORK/step.log" 2>&1
  status=$?
  tr '\r' '\n' <"$WORK/step.log" | grep -vE '^[^:]*: +[0-9]+%\|' >>"$LOG"
  echo "== $name: exit $status after $((SECONDS - begun)) s" | tee -a "$LOG"
  tr '\r' '\n' <"$WORK/step.log" | grep -v '^ *$' | tail -n "${SHOW:-4}"
  return $status
}

install() {
  local here=()
  [ -n "$WHEELS" ] && here=("$WHEELS"/*.whl)
  [ ${#here[@]} -gt 0 ] && {
    step "wheels" "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$WORK/site" \
      "${here[@]}" || return 1
  }
  step "package" "$PYTHON" -m pip install -q --no-index --no-deps --no-build-isolation --upgrade \
    --target "$WORK/site" . || return 1
  rm -rf build ./*.egg-info
  export PYTHONPATH=$WORK/site${PYTHONPATH:+:$PYTHONPATH}
}

simulate() { # name, number of jets, seed
  [ -f "$WORK/$1.hdf5" ] || step "simulate $1" jet simulate "$WORK/$1.hdf5" --num-jets "$2" --seed "$3" \
    --workers "$(cores)"
}

jets() {
  [ -d "$JETS" ] && return
  local source=$WORK/train.hdf5 test=0.1
  if [ "$NUM_JETS" -gt 0 ]; then
    simulate train "$NUM_JETS" 101 || return 1
  else
    test=0.3 # of so few, enough to evaluate on
    source=$("$PYTHON" -c 'from jet_diffusion.data.bundled import sample_path; print(sample_path())')
  fi
  step "convert" jet convert "$source" "$JETS" --test "$test" --workers "$(cores)"
}

train() {
  SHOW=12 step "train for $TRAIN_SECONDS s" timeout --kill-after=20 "$TRAIN_SECONDS" \
    "${JET[@]}" train --config "$CONFIG" --data "$JETS" --run-dir "$RUN" \
    ${INIT_FROM:+--init_from "$INIT_FROM"} "${TRAINING[@]}"
  local status=$?
  [ $status = 0 ] || [ $status = 124 ] || [ $status = 137 ] # the time was up: the next call goes on
}

bench() {
  local variant batch flags common=(--data "$JETS" --config "$BENCH_CONFIG" "${TURNS[@]}")
  export SHOW=16
  for variant in "${VARIANTS[@]}"; do
    flags=()
    [ "$variant" != plain ] && flags=(--compile)
    if [ "$variant" != graphs ]; then
      for batch in "${TRAIN_BATCHES[@]}"; do
        step "training speed, $variant, batch $batch" "$PYTHON" -m benchmarks.speed.training "${common[@]}" "${flags[@]}" \
          --batch-size "$batch" --recipe-batch "$RECIPE_BATCH" --profile
      done
    fi
    [ "$variant" = graphs ] && flags=(--graphs --no-peer)
    step "sampling speed, $variant" "$PYTHON" -m benchmarks.speed.sampling "${common[@]}" "${flags[@]}" \
      --batch "${BATCHES[@]}" --evaluations "$EVALUATIONS"
  done
  step "memory" "$PYTHON" -m benchmarks.speed.memory --data "$JETS" --config "$BENCH_CONFIG" --batch "${MEMORY_BATCHES[@]}" \
    $([ "$SCALE" = tiny ] && echo --cpu)
  step "loader" "$PYTHON" -m benchmarks.speed.loader "${common[@]}"
  unset SHOW
}

evaluate() {
  local real=${HELDOUT:-}
  if [ -z "$real" ] && [ "$HELDOUT_JETS" -gt 0 ]; then
    simulate heldout "$HELDOUT_JETS" 202 && real=$WORK/heldout.hdf5
  fi
  SHOW=30 step "evaluate" jet evaluate "$RUN" "${real:-$JETS}" --out "$RUN/evaluation" --overwrite \
    --size "$EVALUATE_JETS" --jobs "$(cores)" --training "$JETS" --training-hashes "$RUN/training_jets.npy" \
    --batch-size 512 --classifiers "${CLASSIFIERS[@]}"
}

# The averaged weights as a pipeline anybody loads (and training starts from by --init_from), the weights themselves,
# the run's records and report, the log. Large archives travel in parts: cat model.tar.part-* | tar x
pack() { # name, folder, members...
  local name=$1 folder=$2
  shift 2
  rm -f "$OUT/$name".tar*
  tar -C "$folder" -cf - "$@" | split -b $PART_BYTES -d -a 1 - "$OUT/$name.tar.part-"
}

keep() {
  local last members=()
  tail -c $PART_BYTES "$LOG" >"$OUT/log.txt"
  if [ -f "$RUN/run.json" ]; then
    last=$(cd "$RUN/checkpoints" && ls -d step-* 2>/dev/null | sort | tail -n 1)
    for member in config.yaml run.json metrics.jsonl history.png samples evaluation; do
      [ -e "$RUN/$member" ] && members+=("$member")
    done
    rm -rf "$WORK/records" && mkdir -p "$WORK/records"
    (cd "$RUN" && cp -r "${members[@]}" "$WORK/records/")
    tar -C "$WORK" -czf "$OUT/records.tar.gz" records
    if [ -n "$last" ]; then
      rm -rf "$WORK/model"
      step "stage" jet publish "$RUN" --repo user/model --dry-run --folder "$WORK/model" &&
        pack model "$WORK" model
      pack weights "$RUN/checkpoints/$last" weights.safetensors state.json
    fi
  fi
  local count largest
  count=$(find "$OUT" -type f | wc -l)
  largest=$(find "$OUT" -type f -printf '%s\n' | sort -n | tail -n 1)
  echo "kept in $OUT: $count files, the largest of $largest bytes"
  [ "$count" -le 8 ] && [ "${largest:-0}" -le 16777216 ]
}

[ $# -eq 0 ] && set -- install jets train bench evaluate keep
status=0
for stage in "$@"; do
  case $stage in
  install | jets | train | bench | evaluate) "$stage" || { status=1 && echo "stage $stage failed" | tee -a "$LOG"; } ;;
  keep) ;;
  *) echo "no stage $stage; there are install, jets, train, bench, evaluate, keep" >&2 && exit 2 ;;
  esac
done
keep || status=1
exit $status
