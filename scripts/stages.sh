# Sourced by scripts/test and scripts/demo: steps with a name, a time and a verdict.

failed_stages=()

# stage NAME COMMAND...: runs the command under a heading; remembers a failure and goes on.
stage() {
  local name=$1 start=$SECONDS status=0
  shift
  printf '\n== %s\n' "$name" >&2
  "$@" || status=$?
  if [[ $status == 0 ]]; then
    printf '== %s: done in %d s\n' "$name" $((SECONDS - start)) >&2
  else
    failed_stages+=("$name")
    printf '== %s: FAILED after %d s\n' "$name" $((SECONDS - start)) >&2
  fi
}

# needed NAME COMMAND...: a stage without which nothing after it makes sense.
needed() {
  stage "$@"
  if [[ ${#failed_stages[@]} != 0 && ${failed_stages[-1]} == "$1" ]]; then
    exit 1
  fi
}

# ccache takes precompiled headers only when it is told to; sources are named relative to here.
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=yes

# build PRESET [TARGET...]
build() {
  local preset=$1 messages
  shift
  if ! messages=$(cmake --preset "$preset" 2>&1); then
    echo "$messages" >&2
    return 1
  fi
  cmake --build --preset "$preset" --parallel "$(nproc)" ${1:+--target "$@"} >&2
}
