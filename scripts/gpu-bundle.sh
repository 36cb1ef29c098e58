# Packing programs for a machine that has a GPU and nothing else. Sourced, after scripts/lib.sh.
# shellcheck shell=bash

most_bundle_bytes=$((40 << 20))

check_bundle() { # FILE
  local bytes
  bytes=$(stat -c %s "$1")
  ((bytes < most_bundle_bytes)) ||
    die "$1 has $bytes bytes, $most_bundle_bytes are allowed: strip it or leave something out"
  say "$1, $((bytes >> 10)) KiB"
}

# Packs what is in FOLDER as build/NAME.tar.xz. Programs have the same kernels: the dictionary is larger than one of them.
pack_bundle() { # NAME FOLDER
  local bundle=build/$1.tar.xz
  tar -cf - -C "$2" . | xz -c -T 0 --lzma2=preset=1,dict=64MiB >"$bundle"
  check_bundle "$bundle"
}

# Programs and the libraries that they need in NAME/, beside what stands in build/NAME already, as build/NAME.tar.xz.
pack_programs() { # NAME PROGRAM...
  local name=$1 bundle=build/$1 program library
  shift
  mkdir -p "$bundle/$name/lib"
  for program in "$@"; do
    strip -o "$bundle/$name/$(basename "$program")" "$program"
    # All libraries but those of the C library, which belong to the machine's kernel and loader.
    ldd "$program" | awk '$2 == "=>" {print $3}' | grep -vE '/(libc|libm|libdl|librt|libpthread)\.so' |
      while read -r library; do cp -Ln "$library" "$bundle/$name/lib"; done
  done
  pack_bundle "$name" "$bundle"
}
