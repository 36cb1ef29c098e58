# Runs that are cut into parts, where a machine with a GPU is lent for minutes: what is done is remembered, and a run is
# over within most_seconds. Sourced by gpu-tests, gpu-bench and gpu-sanitizer, and in their bundles.
# shellcheck shell=bash

most_seconds=540

# When the run began: one that calls others hands it on.
export GPU_PARTS_SINCE=${GPU_PARTS_SINCE:-$(date +%s)}
parts_elapsed() { echo $(($(date +%s) - GPU_PARTS_SINCE)); }

# Begins DONE_FILE anew unless it is of the very programs. Its first line is their hash, the others are what is done.
begin_parts() { # DONE_FILE PROGRAM...
  local done_file=$1 key
  shift
  key=$(cat "$@" | sha256sum | cut -d ' ' -f 1)
  [[ -e $done_file && $(head -n 1 "$done_file") == "$key" ]] || echo "$key" >"$done_file"
}

# Runs COMMAND if there is time, and says how it ended. 75: the time is up, before it or in it.
run_part() { # SECONDS_TO_BEGIN COMMAND...
  local to_begin=$1 begun status=0
  shift
  begun=$(parts_elapsed)
  if ((begun >= to_begin)); then
    echo "$(basename "$0"): time is up, run it again for the rest" >&2
    return 75
  fi
  timeout -k 10 $((most_seconds - begun)) "$@" || status=$?
  (((status == 124 || status == 137) && $(parts_elapsed) >= most_seconds)) || return "$status"
  if ((begun < 60)); then
    echo "$(basename "$0"): $* takes longer than the $most_seconds s of a run" >&2
    return 1
  fi
  echo "$(basename "$0"): time was up before $* had ended, run it again for the rest" >&2
  return 75
}
