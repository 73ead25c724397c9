#!/usr/bin/env bash
# Runs training on a Cloud TPU slice: one process on each host, and a new slice whenever a spot slice is preempted.
#
#   bash launch/tpu_pod.sh COMMAND --name=NAME --zone=ZONE --type=v5litepod-256 [--share=ADDRESS:/EXPORT] [OPTIONS]
#                          [-- --config=configs/NAME.py --workdir=/share/runs/NAME ARGUMENTS of pyrseg_jax.main …]
#   create   request the slice as a queued resource, and wait until it is active
#   install  copy the project to all hosts, install requirements-tpu.txt, and mount the share as /share
#   run      create, install, start training on all hosts, and follow it; if a run is active already, only follow it
#   logs     follow a run that was started earlier
#   stop     tell the run to save and exit (status 75)
#   status   show the state of the slice and the exit status on each host
#   delete   release the slice
# Options: --project=ID, --runtime=VERSION of the hosts' software (by default the one that fits the type), --spot,
# --poll=SECONDS (default 30), and --dry-run, which prints the commands. Training itself does not depend on this script, except to
# start, and to continue after a preemption: `run` then deletes the slice, requests a new one, and the run resumes from its
# checkpoint. Therefore the workdir must be on the share, an NFS disk that all hosts mount. `run` and `logs` exit with the status
# of the training run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' launch/tpu_pod.sh; }
fail() { echo "error: $1" >&2; exit 1; }
say() { echo "$(date +%T) $1" >&2; }

is_dry=no name="" zone="" kind="" share="" project="" runtime="" poll_s=30 is_spot=no arguments=()
case "${1:-}" in
  create | install | run | logs | stop | status | delete) action=$1; shift ;;
  -h | --help | "") usage; exit 0 ;;
  *) fail "unknown command $1: expected create, install, run, logs, stop, status, or delete (--help explains them)" ;;
esac
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) kind=${1#*=} ;;
    --share=*) share=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --runtime=*) runtime=${1#*=} ;;
    --poll=*) poll_s=${1#*=} ;;
    --spot) is_spot=yes ;;
    --dry-run) is_dry=yes ;;
    --) shift; arguments=("$@"); break ;;
    *) fail "unknown option $1: arguments of pyrseg_jax.main come after -- (--help)" ;;
  esac
  shift
done
[ -n "$name" ] || fail "--name=NAME is missing"
[ -n "$zone" ] || fail "--zone=ZONE is missing, for example --zone=us-west4-a"
case "$action" in create | run) [ -n "$kind" ] || fail "--type=TYPE is missing, for example --type=v5litepod-256" ;; esac
if [ "$action" = run ]; then
  [ ${#arguments[@]} -gt 0 ] || fail "-- --config=configs/NAME.py --workdir=/share/runs/NAME is missing"
  if [ "$is_spot" = yes ] && ! [[ " ${arguments[*]}" == *" --workdir=/share/"* ]]; then
    fail "a preempted spot slice loses its disks: use --share=ADDRESS:/EXPORT and -- … --workdir=/share/…"
  fi
  if [ -z "$share" ] && [[ "${arguments[*]}" == *"=/share/"* ]]; then fail "/share needs --share=ADDRESS:/EXPORT"; fi
fi
if [ -z "$runtime" ]; then
  case "$kind" in
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) runtime=tpu-ubuntu2204-base ;;
  esac
fi
where=(--zone="$zone")
[ -z "$project" ] || where+=(--project="$project")

# ── Commands ────────────────────────────────────────────────────────────────────────────────────────────────────────────
# Prints the words as one would type them in a shell.
quoted() { # word …
  local word
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then printf '%s ' "$word"; else printf "'%s' " "${word//\'/\'\\\'\'}"; fi
  done
}
run() { # command …
  if [ "$is_dry" = yes ]; then quoted "$@"; echo; else "$@"; fi
}
# Runs a piece of shell text on one host or on all.
on_hosts() { # "all" or a host's number, shell text
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$1" --command="$2"
}
# Prints the state of the queued resource: ABSENT if there is none, UNKNOWN if gcloud fails.
state() {
  local answer
  if answer=$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" '--format=value(state.state)' 2>&1); then
    echo "$answer" | tail -n 1
  elif [[ "$answer" == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    echo "$answer" >&2
    echo UNKNOWN
  fi
}

# The shell text that the hosts run. Next to a run's log, train.log, lie its process id (pid), its exit status (exit_status), and an
# empty file (stopped) if `stop` was used.
# shellcheck disable=SC2016 # the hosts expand these variables
{
  in_project='cd ~/pyrseg_jax || exit 1; '
  is_running='[ -e pid ] && [ ! -e exit_status ] && kill -0 "$(cat pid)" 2> /dev/null'
  follow_text=$in_project'for i in 1 2 3 4 5; do [ -e pid ] || sleep 1; done; tail -F --pid="$(cat pid)" train.log -n '
  # Prints the exit status, or "running", "stopped" (after `stop`), or "lost" (the run vanished without an exit status). A run that
  # has just started or ended gets a second to write its files.
  status_text=$in_project"if $is_running; then echo running; else [ -e exit_status ] || sleep 1; "
  status_text+='if [ ! -e exit_status ]; then echo lost; elif [ -e stopped ]; then echo stopped; else cat exit_status; fi; fi'
  stop_text=$in_project"if $is_running; then touch stopped; "'kill -TERM "$(cat pid)"; fi'
  # The Python on these machines is older than the project needs, so uv brings one.
  install_text='set -e; mkdir -p ~/pyrseg_jax; tar -xzf ~/pyrseg_jax.tar.gz -C ~/pyrseg_jax; cd ~/pyrseg_jax; '
  install_text+='if [ ! -x .venv/bin/python ]; then python3 -m pip install --quiet --user uv; '
  install_text+='python3 -m uv venv --quiet --seed --python 3.12 .venv; fi; '
  install_text+='source launch/environment.sh; make_environment requirements-tpu.txt'
  start_text=$in_project"if $is_running; then echo 'already running'; exit 0; fi; rm -f exit_status pid stopped; "
  start_text+='export PATH="$PWD/.venv/bin:$PATH"; nohup setsid bash -c '
  train_text=$(quoted python -m pyrseg_jax.main ${arguments[@]+"${arguments[@]}"})
  start_text+=$(quoted "$train_text"'& echo $! > pid; wait $!; echo $? > exit_status')
  start_text+='> train.log 2>&1 < /dev/null & for i in $(seq 50); do [ -s pid ] || sleep 0.1; done'
}
if [ -n "$share" ]; then
  install_text+='; sudo apt-get -o DPkg::Lock::Timeout=600 -qq install -y nfs-common; sudo mkdir -p /share'
  install_text+="; mountpoint -q /share || sudo mount -t nfs -o rw,hard $(quoted "$share")/share; sudo chmod 777 /share"
fi

# ── Steps ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
request() {
  local options=(--node-id="$name" "${where[@]}" --accelerator-type="$kind" --runtime-version="$runtime")
  [ "$is_spot" = no ] || options+=(--spot)
  say "requesting $kind in $zone as $name"
  run gcloud compute tpus queued-resources create "$name" "${options[@]}"
}
delete() { run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet; }
# Requests the slice unless it exists, requests it again if it was preempted, and waits until it is active.
create() {
  local last="" now
  if [ "$is_dry" = yes ]; then
    request
    echo "# every $poll_s s, until this prints ACTIVE; after SUSPENDED, the slice is deleted and requested again:"
    run gcloud compute tpus queued-resources describe "$name" "${where[@]}" '--format=value(state.state)'
    return
  fi
  while now=$(state); [ "$now" != ACTIVE ]; do
    [ "$now" = "$last" ] || say "$name: $now"
    case "$now" in
      UNKNOWN) [ -n "$last" ] || fail "gcloud does not answer for $name in $zone" ;;
      ABSENT) request ;;
      SUSPENDED) delete; request ;;
      FAILED) fail "the request for $kind failed: gcloud compute tpus queued-resources describe $name --zone=$zone shows why" ;;
    esac
    last=$now
    sleep "$poll_s"
  done
  say "$name: ACTIVE"
}
# Fails and shows gcloud's message if a host cannot be reached.
install() {
  local folder is_done=no
  say "installing on all hosts of $name"
  folder=$(mktemp -d)
  local file=$folder/pyrseg_jax.tar.gz
  if run tar -czf "$file" --exclude=__pycache__ LICENSE README.md configs launch pyproject.toml pyrseg_jax requirements*.txt &&
    run gcloud compute tpus tpu-vm scp "$file" "$name:pyrseg_jax.tar.gz" "${where[@]}" --worker=all &&
    on_hosts all "$install_text"; then is_done=yes; fi
  rm -rf "$folder"
  [ "$is_done" = yes ]
}

# Prints the status of the run on all hosts together: "running" if any host runs it; "lost" if the hosts do not answer or one has
# lost it; "stopped"; otherwise the exit status of the first host that failed, 75 if one saved and stopped, or 0.
run_status() {
  { on_hosts all "$status_text" 2> /dev/null || echo lost; } | awk '
    /^[0-9]+$/ { n++; if ($1 == 75) saved = 1; else if ($1 != 0 && !bad) bad = $1 }
    /^(running|lost|stopped)$/ { n++; is[$1] = 1 }
    END {
      if (is["running"]) print "running"
      else if (is["lost"] || n == 0) print "lost"
      else print bad ? bad : is["stopped"] ? "stopped" : saved ? 75 : 0
    }'
}
# Shows the log of the first host until the run ends. Sets `status`.
follow() {
  local lines=+1
  say "following $name; Ctrl-C stops only this script, and 'run' or 'logs' follow the run again"
  if [ "$is_dry" = yes ]; then
    on_hosts 0 "$follow_text$lines"
    on_hosts all "$status_text"
    status=0
    return
  fi
  while
    on_hosts 0 "$follow_text$lines" || say "the connection was lost"
    lines=10
    status=$(run_status)
    [ "$status" = running ]
  do sleep "$poll_s"; done
}
train() {
  local num_lost=0
  while true; do
    create
    status=lost
    if { [ "$is_dry" = no ] && [ "$(run_status)" = running ]; } || { install && on_hosts all "$start_text"; }; then
      follow
    fi
    case "$status" in
      75) num_lost=0 ;;
      lost)
        # A slice that is being preempted stays ACTIVE for a while.
        if [ "$(state)" = ACTIVE ]; then num_lost=$((num_lost + 1)); else num_lost=0; fi
        [ "$num_lost" -lt 10 ] || finish
        ;;
      0 | stopped) finish ;;
      *) # a failure, or what the remaining hosts report when another one was preempted
        sleep "$poll_s"
        [ "$(state)" != ACTIVE ] || finish
        ;;
    esac
    say "the run was interrupted (${status/75/saved}); it continues from its checkpoint"
    sleep "$poll_s"
  done
}
finish() {
  [ "$is_dry" = no ] || exit 0
  case "$status" in
    lost) fail "the hosts of $name do not answer, cannot be set up, or have lost the run: see 'status'; 'run' continues it" ;;
    0) say "the run is finished; 'delete' releases $name" ;;
    75 | stopped) status=75; say "the run has saved and stopped; 'run' continues it, 'delete' releases $name" ;;
    *) say "the run failed with status $status; 'logs' shows why. $name is billed until 'delete' releases it" ;;
  esac
  exit "$status"
}

case "$action" in
  create) create ;;
  install) install ;;
  run) train ;;
  logs) follow; finish ;;
  stop) on_hosts all "$stop_text" ;;
  status)
    run gcloud compute tpus queued-resources describe "$name" "${where[@]}" '--format=value(state.state)'
    on_hosts all "$status_text"
    ;;
  delete) delete ;;
esac
