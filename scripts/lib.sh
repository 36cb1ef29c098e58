# What the scripts here share: sourced by bash, after `cd` to the root of the repository.
# shellcheck shell=bash

# What can be shared by all checkouts on this machine: toolchains, binaries and images, each under
# a name that says what it was made from, so that it is right or absent, never stale.
cache=${DSM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/deepseek-operator}
mkdir -p "$cache"

# One line of progress on standard error, with the time since the first of our scripts began (one may call
# the other). What a script answers is on standard output.
export DSM_STARTED=${DSM_STARTED:-$(date +%s)}
say() { printf '[%3ds] %s\n' $(($(date +%s) - DSM_STARTED)) "$*" >&2; }

# An error is one sentence that says what to do.
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Copies lines from standard input to standard error, all that match and of the others one every 5 s:
#   some-long-build | progress_of '^STEP'
progress_of() {
  local last=-5 line
  while IFS= read -r line; do
    if [[ $line =~ $1 ]] || ((SECONDS - last >= 5)); then
      last=$SECONDS
      printf '        %s\n' "${line:0:120}" >&2
    fi
  done
}
