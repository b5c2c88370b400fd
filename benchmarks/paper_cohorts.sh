#!/usr/bin/env bash
# Trains the paper's cohorts to the paper's stopping rule, one member a process, and exports each as it finishes.
#
#     benchmarks/paper_cohorts.sh [start|status|pause|resume|stop|export]
#
# `start` runs in the foreground, and started again goes on where it was. The code is a clone of this repository at
# the commit of the first start, with an environment of its own, so that later work does not disturb the training.
# Environment variables: JOBS (members at once; default: cores), PRECISION, COMPILE (both recorded at the first start),
# PAPER_HOME (where clone and cohorts are), MEMBERS_TO (where members are exported to), QUEUE (lines
# `<cohort> <seed>`), EXTRA (further overrides of train.py), RETRIES, NICE (19), POLYMORPH_CLONE with PYTHON (a clone
# that is there).
set -euo pipefail

TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ROOT=${PAPER_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/polymorph/paper-cohorts}
TO=${MEMBERS_TO:-$TREE/docs/results/paper}
CLONE=${POLYMORPH_CLONE:-$ROOT/clone}
PYTHON=${PYTHON:-$CLONE/.venv/bin/python}
JOBS=${JOBS:-$(nproc)}
RETRIES=${RETRIES:-3}
INDEPENDENT=dyck3-paper-independent SHARED=dyck3-paper-shared_io LENGTHS=dyck3-paper-lengths48
QUEUE=${QUEUE:-"$(printf '%s\n' \
    "$INDEPENDENT "{100,101,102} "$SHARED "{0,1,2} "$INDEPENDENT "{103,104} "$SHARED "{3,4} "$LENGTHS "{100,101,102})"}
DONOR=0
declare -A PIDS=() TRIES=() # process → `<cohort> <seed>`; `<cohort> <seed>` → how often it has failed
STOPPING=

say() { echo "$(date '+%F %T') $*"; }
recorded() { sed -n "s/^$1=//p" "$ROOT/record" 2>/dev/null || true; }

overrides_of() { # what makes a cohort what it is
    case $1 in
    "$SHARED") echo "cohort=shared_io cohort.donor=$DONOR" ;;
    "$LENGTHS") echo "cohort=independent task.max_length=48" ;;
    *) echo "cohort=independent" ;;
    esac
}

state_of() { # <cohort> <seed>: the recorded state, nothing before there is one
    local status
    status="$ROOT/cohorts/$1/members/seed-$(printf %04d "$2")/status.json"
    [ ! -f "$status" ] || sed -n 's/^ *"state": "\(.*\)",*$/\1/p' "$status"
}

is_done() { # <cohort> <seed>: finished here, or elsewhere and taken back
    case $(state_of "$1" "$2") in completed | diverged) ;; *) return 1 ;; esac
}

is_running() { # <cohort> <seed>
    [ -f "$ROOT/locks/$1-$2.lock" ] && ! flock --nonblock "$ROOT/locks/$1-$2.lock" true
}

running() { # the process of every member in training, those of a script that was killed included
    local cohort seed
    while read -r cohort seed; do
        if is_running "$cohort" "$seed"; then cat "$ROOT/locks/$cohort-$seed.lock"; fi
    done <<<"$QUEUE"
}

hardware_bfloat16() { grep -qwE 'avx512_bf16|amx_bf16|bf16' /proc/cpuinfo 2>/dev/null; }

prepare() { # the clone, its environment and the record, each made once
    if [ ! -f "$ROOT/record" ] && compgen -G "$ROOT/cohorts/*/cohort.json" >/dev/null; then
        say "$ROOT/cohorts holds cohorts of which no commit is recorded; they are left alone, give another PAPER_HOME"
        exit 1
    fi
    if [ ! -d "$CLONE" ]; then
        rm -rf "$CLONE.part"
        git clone --quiet --no-checkout "$TREE" "$CLONE.part"
        git -C "$CLONE.part" checkout --quiet --detach HEAD
        mv "$CLONE.part" "$CLONE"
    fi
    [ -n "${POLYMORPH_CLONE:-}" ] || OMP_NUM_THREADS=1 nice -n 19 make --quiet -C "$CLONE" .venv/.installed
    local commit precision=float32
    commit=$(git -C "$CLONE" rev-parse HEAD)
    hardware_bfloat16 && precision=bfloat16 || say "this CPU has no bfloat16: float32"
    if [ ! -f "$ROOT/record" ]; then
        printf '%s\n' "commit=$commit" "precision=${PRECISION:-$precision}" "compile=${COMPILE:-true}" >"$ROOT/record.part"
        mv "$ROOT/record.part" "$ROOT/record"
    fi
    check_record "$commit"
}

check_record() { # <commit of the clone>: nothing goes on under other code or numerics than it began with
    if [ "$(recorded commit)" != "$1" ]; then
        say "$CLONE is at $1, but the cohorts were begun at $(recorded commit); they are left alone"
        exit 1
    fi
    local head
    head=$(git -C "$CLONE" ls-remote "$TREE" HEAD 2>/dev/null | cut -f1) || head=
    if [ -z "${POLYMORPH_CLONE:-}" ] && [ "$head" != "$1" ]; then
        say "$TREE is at ${head:-no commit}; the cohorts go on at the recorded $1"
    fi
    if [ "${PRECISION:-$(recorded precision)}" != "$(recorded precision)" ] || [ "${COMPILE:-$(recorded compile)}" != "$(recorded compile)" ]; then
        say "PRECISION and COMPILE are as at the first start: $(recorded precision), $(recorded compile)"
    fi
}

take_back() { # exported members that are not here, so that a folder that was lost is no loss of them
    local from name seed to
    for from in "$TO"/members/*/members/seed-*; do
        [ -f "$from/status.json" ] || continue
        seed=$(basename "$from") name=$(basename "$(dirname "$(dirname "$from")")")
        to="$ROOT/cohorts/$name"
        [ ! -e "$to/members/$seed" ] || continue
        mkdir -p "$to/members"
        [ -f "$to/cohort.json" ] || cp "$TO/members/$name/cohort.json" "$to/cohort.json"
        rm -rf "$ROOT/taken.part"
        cp -r "$from" "$ROOT/taken.part"
        mv "$ROOT/taken.part" "$to/members/$seed"
        say "taken back: $name $seed"
    done
}

train() { # <cohort> <seed>: replaces this shell; waits first for a process that already trains the member
    local lock="$ROOT/locks/$1-$2.lock" log="$ROOT/logs/$1-$2.log" own extra
    read -ra own <<<"$(overrides_of "$1")"
    read -ra extra <<<"${EXTRA:-}"
    exec 8>>"$lock" >>"$log" 2>&1 9>&-
    flock 8
    echo "$BASHPID" >"$lock"
    cd "$ROOT" # the cohorts' root is relative, so that no log holds a path of this machine
    export OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=1 TORCHINDUCTOR_CACHE_DIR="$ROOT/inductor"
    # Linux weighs whole sessions against each other before it looks at niceness, so the session is made nice too.
    exec setsid bash -c 'echo "$0" 2>/dev/null >/proc/self/autogroup || true; exec nice -n "$0" "$@"' "${NICE:-19}" \
        "$PYTHON" "$CLONE/train.py" experiment=paper "seed=$2" "${own[@]}" "cohort.name=$1" \
        cohort.root=cohorts trainer.threads=1 trainer.accelerator=cpu "trainer.precision=$(recorded precision)" \
        "trainer.compile=$(recorded compile)" trainer.progress=false logger=none "${extra[@]}"
}

next_member() { # the first of the queue that is missing, not in training here, and may start; 1 if there is none
    local cohort seed
    while read -r cohort seed; do
        [[ " ${PIDS[*]} " == *" $cohort $seed "* ]] && continue
        [ "${TRIES["$cohort $seed"]:-0}" -lt "$RETRIES" ] || continue
        is_done "$cohort" "$seed" && continue
        [ "$cohort" != "$SHARED" ] || [ "$seed" = "$DONOR" ] || is_done "$SHARED" "$DONOR" || continue
        echo "$cohort $seed"
        return 0
    done <<<"$QUEUE"
    return 1
}

launch() { # as many as there is room for
    local member
    take_back # what has come from another machine meanwhile too
    while [ -z "$STOPPING" ] && [ "${#PIDS[@]}" -lt "$JOBS" ] && member=$(next_member); do
        say "start: $member"
        # shellcheck disable=SC2086 # two words
        train $member &
        PIDS[$!]=$member
        [ -z "$STOPPING" ] || forward # a signal came before it was listed
    done
}

export_finished() { # by the code of the clone
    (cd "$CLONE" && OMP_NUM_THREADS=1 nice -n 19 "$PYTHON" -m benchmarks.paper_members export \
        --cohorts "$ROOT/cohorts" --to "$TO") || say "not everything is exported; '$0 export' tries again"
}

settle() { # <process> <exit status>
    local member=${PIDS[$1]} status=$2
    unset "PIDS[$1]"
    if [ "$status" -eq 0 ]; then
        say "finished: $member"
        export_finished
    elif [ -z "$STOPPING" ]; then
        TRIES[$member]=$((${TRIES[$member]:-0} + 1))
        say "ended with status $status: $member (attempt ${TRIES[$member]} of $RETRIES); its log ends:"
        tail -n 8 "$ROOT/logs/${member/ /-}.log" | sed 's/^/    /'
    fi
}

forward() { # the trainings keep their states and end with 143
    STOPPING=1
    [ "${#PIDS[@]}" -eq 0 ] || kill -TERM "${!PIDS[@]}" 2>/dev/null || true
}

start() {
    mkdir -p "$ROOT"/{cohorts,locks,logs}
    exec 9>>"$ROOT/lock"
    if ! flock --nonblock 9; then
        say "already running: process $(cat "$ROOT/lock")"
        exit 1
    fi
    echo $$ >"$ROOT/lock"
    prepare 9>&-
    trap forward TERM INT
    say "commit $(recorded commit), $(recorded precision), compile=$(recorded compile), $JOBS at once, in $ROOT"
    if compgen -G "$ROOT/cohorts/*/cohort.json" >/dev/null; then export_finished; fi # what a kill came before
    launch
    while [ "${#PIDS[@]}" -gt 0 ]; do
        local ended= status=0
        wait -n -p ended "${!PIDS[@]}" || status=$?
        # A signal ends the wait too, and then nobody has ended.
        [ -z "${ended:-}" ] || settle "$ended" "$status"
        launch
    done
    [ -z "$STOPPING" ] || { say "stopped; start goes on"; exit 143; }
    local left=0 cohort seed
    while read -r cohort seed; do is_done "$cohort" "$seed" || left=1; done <<<"$QUEUE"
    [ $left -eq 0 ] && say "all members have ended" || say "some members have not ended; see $ROOT/logs"
    exit $left
}

is_started() { [ -f "$ROOT/lock" ] && ! flock --nonblock "$ROOT/lock" true; }

signal_all() { # <signal>: to the script first, so that it starts nothing meanwhile, then to every training
    local pids=()
    is_started && pids+=("$(cat "$ROOT/lock")")
    mapfile -t -O ${#pids[@]} pids < <(running)
    [ ${#pids[@]} -gt 0 ] || { say "nothing runs"; return 0; }
    kill "-$1" "${pids[@]}" 2>/dev/null || true
}

stop() {
    signal_all TERM
    signal_all CONT # what is paused ends as well
    while is_started || [ -n "$(running)" ]; do sleep 0.5; done
    say "stopped; start goes on"
}

members() { # <export|status> …: the working tree's module, with the environment of the clone
    cd "$TREE"
    OMP_NUM_THREADS=1 "$PYTHON" -m benchmarks.paper_members "$@" --cohorts "$ROOT/cohorts" --to "$TO"
}

status() {
    local names
    mapfile -t names < <(tr ' ' : <<<"$QUEUE")
    is_started && say "running: process $(cat "$ROOT/lock"), commit $(recorded commit), $(recorded precision)" || say "not running"
    members status "${names[@]}" --locks "$ROOT/locks" --jobs "$JOBS"
}

main() {
    case ${1:-start} in
    start | stop | status) "${1:-start}" ;;
    pause) signal_all STOP ;;
    resume) signal_all CONT ;;
    export) members export ;;
    *)
        echo "usage: $0 [start|status|pause|resume|stop|export]" >&2
        exit 2
        ;;
    esac
}

main "$@"
exit
