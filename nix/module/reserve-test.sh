# reserve-test.sh RESERVE.SH: runs it on directories that look like /sys, in the working directory.
set -euo pipefail
script=$1
export SYSFS=$PWD/sys

# Two sockets of two cores of two CPUs: 0 4, 1 5 | 2 6, 3 7. PAGES as the system has them now.
machine() {
  rm -rf "$SYSFS"
  local node cpu
  for node in 0 1; do
    mkdir -p "$SYSFS/devices/system/node/node$node/hugepages/hugepages-2048kB"
    echo "$1" > "$SYSFS/devices/system/node/node$node/hugepages/hugepages-2048kB/nr_hugepages"
  done
  for cpu in 0 1 2 3 4 5 6 7; do
    mkdir -p "$SYSFS/devices/system/cpu/cpu$cpu/topology"
    echo "$((cpu % 4)),$((cpu % 4 + 4))" > "$SYSFS/devices/system/cpu/cpu$cpu/topology/thread_siblings_list"
    touch "$SYSFS/devices/system/node/node$((cpu % 4 / 2))/cpu$cpu"
  done
  mkdir -p "$SYSFS/module/nitro_enclaves/parameters"
  echo "${2:-}" > "$SYSFS/module/nitro_enclaves/parameters/ne_cpus"
}

reserve() {
  bash -euo pipefail "$script" "$@"
}
pool() {
  cat "$SYSFS/module/nitro_enclaves/parameters/ne_cpus"
}
pages() {
  cat "$SYSFS/devices/system/node/node$1/hugepages/hugepages-2048kB/nr_hugepages"
}
equal() {
  [ "$1" = "$2" ] || {
    echo "expected '$2', got '$1'"
    exit 1
  }
}
# refused WORDS ARGUMENTS...
refused() {
  local words=$1 said
  shift
  if said=$(reserve "$@" 2>&1); then
    echo "not refused: $*"
    exit 1
  fi
  case $said in
    *"$words"*) ;;
    *)
      echo "expected '$words', got '$said'"
      exit 1
      ;;
  esac
  equal "$(pool)" "${pool_before:-}"
}

machine 0
reserve 0 256 1,5
equal "$(pool)" 1,5
equal "$(pages 0)" 256
equal "$(pages 1)" 0

machine 0
reserve 1 512 2,6 3,7
equal "$(pool)" 2,6,3,7
equal "$(pages 1)" 512

# Set apart at boot: the CPUs of the pool are offline and have no topology. More pages than needed stay.
machine 300 1,5
rm -r "$SYSFS"/devices/system/cpu/cpu{1,5}/topology "$SYSFS"/devices/system/node/node0/cpu{1,5}
chmod a-w "$SYSFS/module/nitro_enclaves/parameters/ne_cpus"
reserve 0 256 5,1
equal "$(pool)" 1,5
equal "$(pages 0)" 300

machine 0
refused "core 0, which stays" 0 256 4
refused "core 0, which stays" 0 256 0,4
refused "CPU 1 consists of [ 1 5 ]; give all" 0 256 1
refused "CPU 1 consists of [ 1 5 ]; give all" 0 256 1,6
refused "CPU 2 is not on NUMA node 0" 0 256 2,6
refused "no NUMA node 2" 2 256 1,5

# Without the driver: first what is wrong with the cores, then the driver, which may not be there.
machine 0
mv "$SYSFS/module/nitro_enclaves" hidden
modprobe() {
  [ "$1" = nitro_enclaves ] && [ -e may-load ] && mv hidden "$SYSFS/module/nitro_enclaves"
}
export -f modprobe
pool() {
  cat hidden/parameters/ne_cpus
}
refused "CPU 1 consists of [ 1 5 ]; give all" 0 256 1
refused "--enclave-options Enabled=true" 0 256 1,5
pool() {
  cat "$SYSFS/module/nitro_enclaves/parameters/ne_cpus"
}
touch may-load
reserve 0 256 1,5
equal "$(pool)" 1,5

# A kernel that gives less than it is asked for.
machine 0
cat() {
  case $1 in
    */nr_hugepages) echo 5 ;;
    *) command cat "$@" ;;
  esac
}
export -f cat
pool_before=1,5 refused "gives 5 of 256 huge pages" 0 256 1,5
