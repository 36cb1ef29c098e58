# Packing programs for a machine that has a GPU and nothing else. Sourced, after scripts/lib.sh.
# shellcheck shell=bash

most_bundle_bytes=$((40 << 20))

# Programs and the libraries that they need in NAME/, beside what stands in build/NAME already, as build/NAME.tar.gz.
pack_programs() { # NAME PROGRAM...
  local name=$1 bundle=build/$1 program library bytes
  shift
  mkdir -p "$bundle/$name/lib"
  for program in "$@"; do
    strip -o "$bundle/$name/$(basename "$program")" "$program"
    # All libraries but those of the C library, which belong to the machine's kernel and loader.
    ldd "$program" | awk '$2 == "=>" {print $3}' | grep -vE '/(libc|libm|libdl|librt|libpthread)\.so' |
      while read -r library; do cp -Ln "$library" "$bundle/$name/lib"; done
  done
  tar -czf "$bundle.tar.gz" -C "$bundle" .
  bytes=$(stat -c %s "$bundle.tar.gz")
  ((bytes < most_bundle_bytes)) ||
    die "the bundle has $bytes bytes, $most_bundle_bytes are allowed: strip it or leave something out"
  say "$bundle.tar.gz, $((bytes >> 10)) KiB"
}
