#!/usr/bin/env bash
# Runs the reference pass as an array of eight shards on a real Slurm: a controller and four
# nodes on this machine, set up in a temporary folder and taken down again.
#
#   scripts/slurm-test.sh [DPO-PIPE]
#
# While the array runs, one shard's process is killed, one gets SIGTERM as before a time limit,
# one is put back into the queue, and one is cancelled for good and submitted again. The joined
# cache must be, byte for byte, that of one process.
# Exit status: 0 right, 1 wrong, 3 no Slurm here (Debian's slurm-wlm and munge) and no way to
# install it.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-build/dpo-pipe}")
script=$PWD/examples/slurm/precompute.sbatch
demo=$PWD/internal/demo/assets

say() { echo "slurm-test: $*"; }
fail() {
	say "error: $*" >&2
	exit 1
}

if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo="sudo -n"
	{ command -v apt-get >/dev/null && $sudo true; } 2>/dev/null || {
		say "no Slurm here, and installing it takes apt-get and root" >&2
		exit 3
	}
	say "installing slurm-wlm and munge"
	{ $sudo apt-get -qq update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends slurm-wlm munge; } >/dev/null || {
		say "slurm-wlm and munge can't be installed" >&2
		exit 3
	}
fi

tmp=$(mktemp -d /tmp/dpo-pipe-slurm.XXXXXX)
daemons=()
down() {
	[ $? = 0 ] || tail -n 5 "$tmp"/*.log "$tmp"/*.txt >&2 2>/dev/null || true
	for pid in $(printf '%s\n' "${daemons[@]}" | tac); do
		kill "$pid" 2>/dev/null && wait "$pid" || true
	done
	rm -rf "$tmp"
}
trap down EXIT
cd "$tmp"
chmod 755 .
mkdir bin munge state spool
ln -s "$program" bin/dpo-pipe
export PATH="$tmp/bin:$PATH"

# start NAME COMMAND… keeps a daemon of this script in the background.
start() {
	local name=$1
	shift
	"$@" >"$name.log" 2>&1 &
	daemons+=($!)
}

# await SECONDS WHAT COMMAND… polls until a command succeeds.
await() {
	local until=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $until ] || fail "waited in vain for $what"
		sleep 0.05
	done
}

export MODEL="$demo/model" DATA="$demo/preferences.jsonl" OUT="$tmp/cache" SHARDS=8
# Small parts and batches, so that there are many moments to be killed at.
pass=(--part-pairs 4 --batch-tokens 1 --limit 1200)
dpo-pipe precompute-ref --model "$MODEL" --data "$DATA" --out one --memory 2g "${pass[@]}" >one.log 2>&1 &
one=$!

mungekey --create --keyfile munge/key
start munged munged --foreground --key-file="$tmp/munge/key" --socket="$tmp/munge/socket" \
	--pid-file="$tmp/munge/pid" --log-file="$tmp/munge/log" --seed-file="$tmp/munge/seed"
await 10 munged test -S munge/socket
host=$(hostname -s)
user=$(id -un)
port=$((20000 + RANDOM % 10000))
# A job that is put back into the queue waits for cred_expire seconds, 120 by default.
cat >slurm.conf <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$tmp/munge/socket,cred_expire=5
StateSaveLocation=$tmp/state
SlurmdSpoolDir=$tmp/spool/%n
SlurmctldPidFile=$tmp/slurmctld.pid
SlurmdPidFile=$tmp/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=3600
NodeName=n[1-4] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 4))] CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
END
export SLURM_CONF="$tmp/slurm.conf"
start slurmctld slurmctld -D -i
for node in n1 n2 n3 n4; do
	start "slurmd-$node" slurmd -D -N "$node"
done
nodes_idle() { [ "$(sinfo --noheader --Node --states=idle | wc -l)" = 4 ]; }
await 30 "four idle nodes" nodes_idle
say "$(slurmctld -V) runs with $(sinfo --noheader --Node | wc -l) nodes"

wait $one || fail "the pass of one process failed"

# submit ARRAY submits shards, and the job that joins them once all have ended well; array
# and join are their ids.
submit() {
	array=$(sbatch --parsable --array="$1" --cpus-per-task=1 --mem=0 --output="$tmp/shard-%a.txt" "$script" "${pass[@]}")
	join=$(sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes --output="$tmp/join.txt" \
		--wrap 'dpo-pipe precompute-ref --out "$OUT" --join')
}

# field JOB NAME is a field of what the controller knows about a job.
field() { scontrol --oneliner show job "$1" | grep -o " $2=[^ ]*" | cut -d= -f2; }

# begun SHARD waits until the shard has a whole part, so that it is stopped in the middle.
begun() { await 60 "a part of shard $1" compgen -G "$OUT/shards/shard-0000$1-of-00008/part-*.arrow"; }

# process SHARD prints the id of the shard's process.
process() {
	local id
	id=$(scontrol --oneliner show job "${array}_$1" | grep -o '^JobId=[0-9]*' | cut -d= -f2)
	for pid in $(scontrol listpids "$id" "$(field "$id" BatchHost)" | awk 'NR > 1 { print $1 }'); do
		if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dpo-pipe ]; then
			echo "$pid"
		fi
	done
}

submit 0-7
say "array $array of 8 shards and job $join, which joins them, are submitted"
begun 1 && kill -KILL "$(process 1)" && say "shard 1: SIGKILL to its process"
begun 2 && scancel --batch --signal=TERM "${array}_2" && say "shard 2: SIGTERM, as before a time limit"
begun 4 && scontrol requeue "${array}_4" && say "shard 4: put back into the queue"
begun 5 && scancel "${array}_5" && say "shard 5: cancelled for good"

ended() { [ -z "$(squeue --noheader --jobs="$1" --states=PENDING,RUNNING,COMPLETING)" ]; }
await 120 "the end of the array" ended "$array"
await 30 "the end of the join" ended "$join"
for shard in 0 1 2 3 4 5 6 7; do
	say "shard $shard: $(field "${array}_$shard" JobState), restarted $(field "${array}_$shard" Restarts) times $(grep -o '([0-9.]* s, .*)' "shard-$shard.txt" | head -n 1)"
done
[ "$(field "${array}_5" JobState)" = CANCELLED ] || fail "shard 5 is not cancelled: it ended too soon"
for shard in 1 2 4; do
	[ "$(field "${array}_$shard" Restarts)" = 1 ] || fail "shard $shard was not restarted once"
	grep -q 'of them from before' "shard-$shard.txt" || fail "shard $shard did not go on where it was stopped"
done
[ "$(field "$join" JobState)" = CANCELLED ] || fail "the join is $(field "$join" JobState), want that it never ran"
code=0
dpo-pipe precompute-ref --out "$OUT" --join 2>join.err || code=$?
say "joined without it: exit code $code, $(grep -o 'lacks.*' join.err)"
[ $code = 1 ] && grep -q 'unfinished: 5$' join.err || fail "want exit code 1 and that shard 5 is unfinished"

submit 5
say "shard 5 and the join are submitted again"
await 60 "the end of shard 5" ended "$array"
await 60 "the end of the join" ended "$join"
[ "$(field "$join" JobState)" = COMPLETED ] || fail "the join is $(field "$join" JobState): $(cat join.txt)"
say "$(cat join.txt)"
diff -r one "$OUT" || fail "the joined cache is not that of one process"
say "the joined cache has the bytes of one process ($(ls "$OUT" | wc -l) files)"
