#!/usr/bin/env bash
# Runs training on a TPU slice of a GKE cluster: fills in launch/gke_jobset.yaml and passes it to kubectl.
#
#   bash launch/gke.sh COMMAND --name=NAME [OPTIONS] [-- --config=configs/NAME.py --workdir=/share/runs/NAME ARGUMENTS …]
#   run      start the run; needs --image=IMAGE, --accelerator=tpu-v5-lite-podslice, --topology=16x16, --claim=CLAIM, and the
#            arguments of pyrseg_jax.main after --
#   logs     follow the log of the first process
#   status   show the JobSet and its pods
#   delete   end the run: the processes get SIGTERM and save; the same `run` command continues from there
# Options: --spot (use preemptible nodes), --max_restarts=N after failures (default 3), --chips_per_host=N (default 4), and
# --dry-run, which prints the filled-in file and the commands. CLAIM is a volume claim with access mode ReadWriteMany; the pods
# mount it as /share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' launch/gke.sh; }
fail() { echo "error: $1" >&2; exit 1; }

is_dry=no is_spot=no name="" image="" accelerator="" topology="" claim="" max_restarts=3 chips_per_host=4 arguments=()
case "${1:-}" in
  run | logs | status | delete) action=$1; shift ;;
  -h | --help | "") usage; exit 0 ;;
  *) fail "unknown command $1: expected run, logs, status, or delete (--help explains them)" ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --claim=*) claim=${1#*=} ;;
    --max_restarts=*) max_restarts=${1#*=} ;;
    --chips_per_host=*) chips_per_host=${1#*=} ;;
    --spot) is_spot=yes ;;
    --dry-run) is_dry=yes ;;
    --) shift; arguments=("$@"); break ;;
    *) fail "unknown option $1: arguments of pyrseg_jax.main come after -- (--help)" ;;
  esac
  shift
done
[[ "$name" =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
  fail "--name=$name: expected lower-case letters, digits, and hyphens, starting with a letter"

source launch/fill_in.sh # run, as_json, put
filled_in() { # number of hosts
  {
    put NAME "$name"
    put IMAGE "$image"
    put ACCELERATOR "$accelerator"
    put TOPOLOGY "$topology"
    put CLAIM "$claim"
    put MAX_RESTARTS "$max_restarts"
    put CHIPS_PER_HOST "$chips_per_host"
    put HOSTS "$1"
    put ARGUMENTS "$(as_json "${arguments[@]}")"
    [ "$is_spot" = yes ] || echo '/gke-spot/d'
  } | sed -f /dev/stdin launch/gke_jobset.yaml
}

case "$action" in
  run)
    for option in image accelerator topology claim; do [ -n "${!option}" ] || fail "--$option=… is missing (--help)"; done
    [[ "$topology" =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] || fail "--topology=$topology: expected numbers of chips, like 4x4 or 2x2x4"
    [[ "$chips_per_host" =~ ^[1-9][0-9]*$ ]] || fail "--chips_per_host=$chips_per_host: expected a whole number of at least 1"
    [[ "$max_restarts" =~ ^[0-9]+$ ]] || fail "--max_restarts=$max_restarts: expected a whole number"
    [[ " ${arguments[*]-}" == *" --workdir=/share/"* ]] ||
      fail "-- --config=configs/NAME.py --workdir=/share/runs/NAME is missing: files outside of the share are lost with the pod"
    chips=1
    for side in ${topology//x/ }; do chips=$((chips * side)); done
    [ $((chips % chips_per_host)) = 0 ] ||
      fail "--topology=$topology has $chips chips, which is not a multiple of --chips_per_host=$chips_per_host"
    text=$(filled_in $((chips / chips_per_host)))
    if [ "$is_dry" = yes ]; then echo "$text"; fi
    run kubectl create -f - <<< "$text"
    ;;
  logs)
    first="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
    run kubectl logs --follow --tail=-1 --selector="$first"
    ;;
  status)
    run kubectl get jobset "$name"
    run kubectl get pods --selector="jobset.sigs.k8s.io/jobset-name=$name"
    ;;
  delete) run kubectl delete jobset "$name" ;;
esac
