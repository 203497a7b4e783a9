#!/usr/bin/env bash
# What scripts/launch promises. Usage: launch_test.sh LAUNCH HELPER
set -uo pipefail

launch=$1
helper=$2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
# All that the launcher leaves in temporary folders is found here.
export TMPDIR=$directory/tmp
mkdir "$TMPDIR"
failures=0

fail() {
  printf 'FAILED: %s\n' "$1"
  sed 's/^/  | /' "$directory/output"
  failures=$((failures + 1))
}

# expect CODE NAME COMMAND...: its exit code; output goes to $directory/output.
expect() {
  local expected=$1 name=$2 got
  shift 2
  "$@" >"$directory/output" 2>&1
  got=$?
  printf '%-58s %s\n' "$name" "$got"
  [[ $got == "$expected" ]] || fail "$name: exit code $got, not $expected"
  expect_nothing_left "$name"
}

expect_output() {
  grep -qE -- "$1" "$directory/output" || fail "output has no '$1'"
}

processes_left() {
  pgrep -af "^((mpirun|timeout -k) .*)?$helper( |$)"
}

expect_nothing_left() {
  local left
  left=$(ls "$TMPDIR" && processes_left)
  [[ -z $left ]] || fail "$1: left over: $left"
}

# signal_after SECONDS SIGNAL COMMAND...: COMMAND's exit code, when it gets SIGNAL after SECONDS.
signal_after() {
  local seconds=$1 signal=$2 pid
  shift 2
  # Job control: without it, a command in the background ignores INT.
  set -m
  "$@" &
  pid=$!
  set +m
  sleep "$seconds"
  kill "-$signal" "$pid"
  wait "$pid"
}

expect 0 'help' "$launch" --help
expect_output '^Usage: scripts/launch -n RANKS'
expect 2 'no arguments' "$launch"
expect 2 'no command' "$launch" -n 2
expect_output 'no command given'
expect 2 'zero ranks' "$launch" -n 0 -- true
expect_output "got '0'"
expect 2 'option without its value' "$launch" -n
expect 2 'unknown option' "$launch" -n 2 --quick -- true
expect_output "unknown option '--quick'"
expect 127 'no such program' "$launch" -n 2 -- "$directory/nothing"
expect_output "no program '$directory/nothing'"

expect 0 'all ranks return 0' "$launch" -n 4 -- "$helper" size
expect_output '^4 4$'
expect 0 'a single process without mpirun' env TMPDIR="$directory" "$helper" size
expect_output '^1 1$'
for code in 3 85; do
  expect "$code" "all ranks return $code" "$launch" -n 2 -- "$helper" return "$code"
done
expect 65 'one rank exits with 65 while others block' "$launch" -n 3 -- "$helper" exit 65
expect 75 'one rank aborts with 75 while others block' "$launch" -n 3 -- "$helper" abort 75
expect 137 'one rank is killed' "$launch" -n 2 -- "$helper" kill
expect_output '^launch: ended by signal 9 \(KILL\)$'
# shellcheck disable=SC2016
expect 0 'output that is no terminal' "$launch" -n 1 -- bash -c 'echo "TERM is $TERM"'
expect_output '^TERM is dumb$'
expect 65 'one rank unwinds while others block' "$launch" -n 2 --timeout 20 -- "$helper" throw
expect_output 'rank without data'
expect 3 'a program without MPI' "$launch" -n 2 -- sh -c 'exit 3'
[[ ! -s $directory/output ]] || fail 'mpirun adds to what COMMAND says'
expect 0 'arguments with spaces' "$launch" -n 1 -- test 'a  b' = 'a  b'

# A wait that cannot end says so and ends the job; `timeout` only bounds a failure of this.
expect 75 'a rank sleeps' timeout -k 1 20 "$launch" -n 2 -- "$helper" late-sleeps
expect_output '^all_reduce sum of float32\[1000\] over tp \(number 2\): waited 1\.[0-9] s; not there: rank 1 \(silent\)'
expect 75 'a rank is stopped' timeout -k 1 20 "$launch" -n 2 -- "$helper" late-stops
expect_output 'over tp \(number 2\): waited 1\.[0-9] s; not there: rank 1 \(silent\)'
expect 75 'a rank waits elsewhere' timeout -k 1 20 "$launch" -n 4 -- "$helper" late-elsewhere
# Whichever rank ends first has said where another is.
elsewhere='last seen: broadcast of float32\[1000\] from rank 0 over dp, number 1'
expect_output "rank 3 \($elsewhere\)|rank 1 \(world rank 3, $elsewhere\)|rank 0 \(world rank 1, last seen: barrier over world, number 4\)"

expect 124 'time is over' "$launch" -n 2 --timeout 1 -- "$helper" hang
expect 85 'TERM asks for a save' signal_after 1 TERM "$launch" -n 2 -- "$helper" until-stopped
expect_output '^rank 0 saved'
expect_output '^rank 1 saved'
expect 85 'INT asks for a save' signal_after 1 INT "$launch" -n 2 -- "$helper" until-stopped
expect 85 'HUP asks for a save' signal_after 1 HUP "$launch" -n 2 -- "$helper" until-stopped
for seconds in 0.1 0.2 0.3; do
  expect 85 "TERM $seconds s after the start" \
    signal_after "$seconds" TERM "$launch" -n 2 --timeout 20 -- "$helper" until-stopped
done
expect 85 'TERM ends a program that does not handle USR1' \
  signal_after 1 TERM "$launch" -n 2 -- sleep 60
expect 1 'QUIT ends a job that ignores USR1' signal_after 1 QUIT "$launch" -n 2 -- "$helper" hang

expect 0 'a rank leaves a process behind' \
  "$launch" -n 1 -- sh -c 'setsid sleep 71.25 >/dev/null 2>&1 & exit 0'
if pgrep -f '^sleep 71.25$' >"$directory/output"; then fail 'a process of the job still runs'; fi

# The launcher itself is killed: its files stay, the ranks must not.
"$launch" -n 2 -- "$helper" hang >"$directory/output" 2>&1 &
sleep 1
kill -KILL $!
wait $! 2>/dev/null
for _ in $(seq 40); do
  [[ -n $(processes_left) ]] || break
  sleep 0.25
done
for session in "$TMPDIR"/*; do rm -rf "$session" "/dev/shm/${session##*/}"; done
printf '%s\n' 'the launcher is killed'
expect_nothing_left 'the launcher is killed'

# shellcheck disable=SC2016
show='echo threads=$OMP_NUM_THREADS wait=$OMP_WAIT_POLICY yield=$OMPI_MCA_mpi_yield_when_idle
      echo segments=$OMPI_MCA_btl_vader_backing_directory; ls -d "$TMPDIR"'
unset OMP_NUM_THREADS OMP_WAIT_POLICY
expect 0 'environment: one rank takes all cores' "$launch" -n 1 -- sh -c "$show"
expect_output "^threads=$(nproc) wait=passive yield=1$"
expect_output "^$TMPDIR/launch"
segments=$(sed -n 's/^segments=//p' "$directory/output" | tr -d '\r')
[[ -n $segments && ! -e $segments ]] || fail "shared-memory folder '$segments' is still there"
expect 0 'environment: more ranks than cores' "$launch" -n "$(($(nproc) + 1))" -- sh -c "$show"
expect_output '^threads=1 wait=passive'
expect 0 'environment: what is set wins' env OMP_NUM_THREADS=5 OMP_WAIT_POLICY=active \
  OMPI_MCA_mpi_yield_when_idle=0 "$launch" -n 1 -- sh -c "$show"
expect_output '^threads=5 wait=active yield=0'

# The same sums in every run.
for ranks in 2 3 4; do
  expect 0 "sums over $ranks ranks" "$launch" -n "$ranks" -- "$helper" sums
  cp "$directory/output" "$directory/first"
  expect 0 "sums over $ranks ranks again" "$launch" -n "$ranks" -- "$helper" sums
  cmp -s "$directory/first" "$directory/output" || fail "$ranks ranks: other sums in another run"
  [[ $(wc -l <"$directory/output") == 4 ]] || fail "$ranks ranks: expected four sums"
done

((failures == 0)) || exit 1
