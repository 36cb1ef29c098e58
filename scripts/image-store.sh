# How buildah is called here: sourced by bash, after lib.sh.
# shellcheck shell=bash disable=SC2154 # cache is set by lib.sh

# One store for all checkouts on this machine (buildah locks it), so that layers are shared. chroot
# isolation needs no container runtime and no daemon, and works inside most containers.
export BUILDAH_ISOLATION=chroot
image_store() {
  local driver=overlay
  # Overlay cannot be mounted upon overlay; then every layer is a plain copy.
  if [[ $(stat -f -c %T "$cache") == overlayfs ]]; then driver=vfs; fi
  buildah --root "$cache/images" --runroot /run/deepseek-operator-images --storage-driver "$driver" "$@"
}
