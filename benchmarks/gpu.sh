#!/usr/bin/env bash
# Measures on a machine with a GPU, and trains cohort B there as one stack: in pieces of at most eight minutes.
#
#     benchmarks/gpu.sh [--cpu-rehearsal]
#
# Each piece leaves a Markdown file in $OUT (default benchmarks/out) and is skipped when it is there; `gpu.md` is all of
# them. The cohort is trained last; its time limit keeps the state, and the next start goes on. Nothing is
# installed and no network is used: PYTHON is an interpreter that has the package's requirements. LIMIT is the
# seconds of a piece, COHORTS where the cohorts lie (default $OUT/cohorts). `--cpu-rehearsal` runs every piece in tiny sizes.
# Exit status: 0 all pieces are done, 1 a piece failed, 2 there is no GPU, 143 the cohort needs another start.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=$(realpath -m "${OUT:-benchmarks/out}")
COHORTS=${COHORTS:-$OUT/cohorts}
PYTHON=${PYTHON:-.venv/bin/python}
LIMIT=${LIMIT:-480}
TINY=()
DEVICE=cuda ACCELERATOR=gpu FAILED=0

if [ "${1:-}" = --cpu-rehearsal ]; then
    DEVICE=cpu ACCELERATOR=cpu
    OUT=$OUT/rehearsal # nothing of it may pass for a result
    COHORTS=$OUT/cohorts
    TINY=(model.n_layers=1 model.d_model=16 model.n_heads=2 model.d_head=8 model.d_mlp=32 trainer.max_steps=20
        trainer.batch_size=8 trainer.eval_every=10 trainer.eval_sequences=8 trainer.log_every=5 trainer.threads=1
        checkpoints.powers_until=2 checkpoints.every=10 'checkpoints.also=[]' probe.fit=16 probe.eval=16)
elif [ $# -gt 0 ]; then
    echo "usage: $0 [--cpu-rehearsal]" >&2
    exit 2
elif ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "there is no GPU here; --cpu-rehearsal runs every piece in tiny sizes on the CPU" >&2
    exit 2
fi
mkdir -p "$OUT" "$COHORTS"

limited() { # <command …>: asked to end after LIMIT seconds, and killed a minute later
    timeout --signal=TERM --kill-after=60 "$LIMIT" "$@"
}

piece() { # <name> <title> <command …>: its output as one Markdown file, unless there is one
    local name=$1 title=$2 file="$OUT/$1.md" status=0
    shift 2
    if [ -f "$file" ]; then
        echo "$name: done before"
        return
    fi
    echo "$name: $(shown "$@")"
    limited "$@" >"$file.part" 2>"$OUT/$name.log" || status=$?
    if [ "$status" -ne 0 ]; then
        echo "$name failed with status $status; $OUT/$name.log ends:"
        tail -n 5 "$OUT/$name.log"
        FAILED=1
        return
    fi
    { printf '## %s\n\n%s: `%s`\n\n' "$title" "$(device)" "$(shown "$@")" && block "$file.part"; } >"$file.new"
    mv "$file.new" "$file"
    rm "$file.part"
}

device() { cat "$OUT/device.txt"; }
shown() { # a function of this script goes by its name
    local words="$*"
    [ "$1" != bash ] || words="benchmarks/gpu.sh: $4"
    echo "${words//$PYTHON/python}"
}
block() { # a file with a table as Markdown, any other as a block of text
    if grep -q '^|' "$1"; then
        awk '{ row = /^\|/ } NR > 1 && row != before { print "" } { print; before = row }' "$1"
    else
        echo '```' && cat "$1" && echo '```'
    fi
}

name_device() {
    "$PYTHON" - "$DEVICE" >"$OUT/device.txt" <<'EOF'
import os, platform, sys, torch
name = torch.cuda.get_device_name() if sys.argv[1] == "cuda" else f"CPU ({platform.machine()}), a rehearsal"
print(f"{name}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, torch {torch.__version__}")
EOF
    device
}

small_cohort() { # <overrides …>: trained on the device, then analysed there; not among the cohorts that are exported
    local began=$SECONDS trained
    "$PYTHON" train.py experiment=quick 'seed=[0,1,2]' "trainer.accelerator=$ACCELERATOR" "cohort.root=$OUT/small" \
        cohort.name=quick trainer.progress=false logger=none "$@" >&2
    trained=$((SECONDS - began))
    "$PYTHON" analyze.py cohort=quick "root=$OUT/small" "accelerator=$ACCELERATOR" 'study=[ladder,haar,equivalence]' \
        step=last logger=none >&2
    printf '| %s | s |\n|---|---|\n' "experiment=quick, three seeds as one stack"
    printf '| training | %d |\n| ladder, haar and equivalence at the last step | %d |\n' "$trained" $((SECONDS - began - trained))
}

missing() { # the seeds of cohort B that are not exported yet, as a list for Hydra
    local seed seeds=()
    for seed in 100 101 102 103 104; do
        [ -d "docs/results/paper/members/dyck3-paper-independent/members/seed-0$seed" ] || seeds+=("$seed")
    done
    local IFS=,
    echo "[${seeds[*]}]"
}

cohort() { # as far as it gets; 143 if it needs another start
    local seeds status=0
    seeds=$(missing)
    [ "$seeds" != "[]" ] || { echo "cohort: every member is exported"; return 0; }
    [ "$DEVICE" = cuda ] || seeds='[100,101]'
    echo "cohort: seeds $seeds as one stack"
    limited "$PYTHON" train.py "trainer.accelerator=$ACCELERATOR" "cohort.root=$COHORTS" trainer.progress=false \
        logger=none experiment=paper "seed=$seeds" cohort.name=dyck3-paper-independent "${TINY[@]}" \
        >>"$OUT/cohort.log" 2>&1 || status=$?
    "$PYTHON" -m benchmarks.paper_members export --cohorts "$COHORTS" --to "$OUT/paper" | tee "$OUT/cohort.txt" || status=1
    { printf '## Cohort B as one stack\n\n%s: seeds %s\n\n' "$(device)" "$seeds"; grep '^|' "$OUT/paper/README.md" || true; } >"$OUT/cohort.md"
    tail -n 2 "$OUT/cohort.log"
    case $status in
    0) return 0 ;;
    124 | 143) return 143 ;;
    *) return 1 ;;
    esac
}

main() {
    local rehearsal=() saes=() alignment=(--budget 20) status=0
    if [ "$DEVICE" = cpu ]; then
        rehearsal=(--rounds 1 --steps 1 --batch 16) saes=(--quick) alignment=(--quick)
    fi
    name_device
    piece step "A training step of 1, 4 and 10 members" "$PYTHON" -m benchmarks.training --device "$DEVICE" "${rehearsal[@]}"
    piece saes "SAEs as one stack" "$PYTHON" -m benchmarks.saes --device "$DEVICE" "${saes[@]}"
    piece moments "Moments and maps" "$PYTHON" -m benchmarks.alignment --device "$DEVICE" "${alignment[@]}"
    export -f small_cohort
    export PYTHON ACCELERATOR OUT
    piece analysis "Training and analysis of a small cohort" bash -c 'set -euo pipefail; small_cohort "$@"' small_cohort "${TINY[@]}"
    cohort || status=$?
    { printf '# On a GPU\n\n%s\n' "$(device)"; for name in step saes moments analysis cohort; do
        [ ! -f "$OUT/$name.md" ] || { echo; cat "$OUT/$name.md"; }
    done; } >"$OUT/gpu.md"
    echo "written: $OUT/gpu.md"
    [ "$FAILED" -eq 0 ] || exit 1
    exit "$status"
}

main
exit
