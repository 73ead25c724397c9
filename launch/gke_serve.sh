#!/usr/bin/env bash
# Serves a model on a GKE cluster: fills in launch/gke_serve.yaml and passes it to kubectl.
#
#   bash launch/gke_serve.sh COMMAND --name=NAME [OPTIONS] [-- MODEL ARGUMENTS of pyrseg serve …]
#   run      start the service, or change one that runs; needs --image=IMAGE (of launch/Dockerfile), --secret=SECRET (a secret of the
#            cluster whose key `token` clients must send), and the model after --
#   logs     follow the log of all pods
#   status   show the deployment, its pods and its service
#   delete   end the service; each pod finishes what it holds
# Options: --replicas=N (default 1), --cpu=N and --memory=SIZE of a pod (2, 4Gi), --gpu=TYPE for one GPU per pod, such as nvidia-l4
# (the image then needs the extra `cuda`), --claim=CLAIM, a volume claim that the pods mount as /share to read the model from it, and
# --dry-run, which prints the filled-in file and the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' launch/gke_serve.sh; }
fail() { echo "error: $1" >&2; exit 1; }

is_dry=no name="" image="" secret="" replicas=1 cpu=2 memory=4Gi gpu="" claim="" arguments=()
case "${1:-}" in
  run | logs | status | delete) action=$1; shift ;;
  -h | --help | "") usage; exit 0 ;;
  *) fail "unknown command $1: expected run, logs, status, or delete (--help explains them)" ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --secret=*) secret=${1#*=} ;;
    --replicas=*) replicas=${1#*=} ;;
    --cpu=*) cpu=${1#*=} ;;
    --memory=*) memory=${1#*=} ;;
    --gpu=*) gpu=${1#*=} ;;
    --claim=*) claim=${1#*=} ;;
    --dry-run) is_dry=yes ;;
    --) shift; arguments=("$@"); break ;;
    *) fail "unknown option $1: arguments of pyrseg serve come after -- (--help)" ;;
  esac
  shift
done
[[ "$name" =~ ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
  fail "--name=$name: expected lower-case letters, digits, and hyphens, at most 63, starting with a letter"

source launch/fill_in.sh # run, as_json, put
filled_in() {
  {
    put NAME "$name"
    put IMAGE "$image"
    put SECRET "$secret"
    put REPLICAS "$replicas"
    put CPU "$cpu"
    put MEMORY "$memory"
    put GPU "$gpu"
    put CLAIM "$claim"
    put ARGUMENTS "$(as_json serve "${arguments[@]}" --host=0.0.0.0 --port=8000)"
    [ -n "$gpu" ] || echo '/# only with --gpu/d'
    [ -n "$claim" ] || echo '/# only with --claim/d'
  } | sed -f /dev/stdin launch/gke_serve.yaml
}

case "$action" in
  run)
    for option in image secret; do [ -n "${!option}" ] || fail "--$option=… is missing (--help)"; done
    [[ "$replicas" =~ ^[0-9]+$ ]] || fail "--replicas=$replicas: expected a whole number"
    [[ "$cpu" =~ ^[1-9][0-9]*m?$ ]] || fail "--cpu=$cpu: expected a number of cores, such as 4, or 500m"
    [[ "$memory" =~ ^[1-9][0-9]*(Mi|Gi)$ ]] || fail "--memory=$memory: expected a size, such as 8Gi"
    [[ "${arguments[0]-}" =~ ^[^-] ]] || fail "the model is missing: name it after --, such as -- camvid-small or -- /share/runs/mine"
    for argument in "${arguments[@]}"; do
      case "$argument" in --host* | --port* | --token*) fail "$argument: this script sets it" ;; esac
    done
    if [[ "${arguments[0]}" == /share/* ]]; then [ -n "$claim" ] || fail "${arguments[0]} needs --claim=CLAIM"; fi
    text=$(filled_in)
    if [ "$is_dry" = yes ]; then echo "$text"; fi
    run kubectl apply -f - <<< "$text"
    ;;
  logs) run kubectl logs --follow --tail=-1 --prefix --selector="app=$name" ;;
  status) run kubectl get deployments,pods,services --selector="app=$name" ;;
  delete) run kubectl delete deployment,service --selector="app=$name" ;;
esac
