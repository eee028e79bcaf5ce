# nitro-sign-reserve NODE PAGES CORE...: sets PAGES huge pages of 2 MiB on a NUMA node and whole cores (each CORE: all its CPUs,
# with commas) apart for an enclave. Nothing happens to what is set apart already.
# SYSFS is another directory in tests.
sysfs=${SYSFS:-/sys}
node=$1 pages=$2
shift 2

fail() {
  echo "nitro-sign-reserve: $*" >&2
  exit 1
}

# 0-2,5 -> 0 1 2 5, in order
expand() {
  local part
  for part in ${1//,/ }; do seq "${part%-*}" "${part#*-}"; done | sort -n | xargs
}

[ -d "$sysfs/devices/system/node/node$node" ] ||
  fail "there is no NUMA node $node; set enclave.nitro.numaNode (lscpu shows the nodes)"

# --- cores ---
driver=$sysfs/module/nitro_enclaves
pool=$driver/parameters/ne_cpus
wanted=$(IFS=, && echo "$*")
# The driver checks all of this, too, but says less. Only CPUs that are in no pool yet have a topology.
if [ ! -e "$pool" ] || [ "$(expand "$(cat "$pool")")" != "$(expand "$wanted")" ]; then
  for core in "$@"; do
    for cpu in ${core//,/ }; do
      topology=$sysfs/devices/system/cpu/cpu$cpu/topology
      [ -e "$topology/thread_siblings_list" ] || continue
      siblings=$(expand "$(cat "$topology/thread_siblings_list")")
      case " $siblings " in
        *" 0 "*) fail "CPU $cpu belongs to core 0, which stays with the system; choose another in enclave.nitro.cores" ;;
      esac
      [ "$siblings" = "$(expand "$core")" ] ||
        fail "enclave.nitro.cores has [ ${core//,/ } ], but the core of CPU $cpu consists of [ $siblings ]; give all of them"
      [ -e "$sysfs/devices/system/node/node$node/cpu$cpu" ] ||
        fail "CPU $cpu is not on NUMA node $node; choose cores of one node, or set enclave.nitro.numaNode"
    done
  done
fi
[ -d "$driver" ] || modprobe nitro_enclaves ||
  fail "the driver nitro_enclaves cannot be loaded: was the instance launched with enclaves enabled" \
    "(--enclave-options Enabled=true), and does its type support them? The kernel's log (dmesg) says more."
if [ "$(expand "$(cat "$pool")")" != "$(expand "$wanted")" ]; then
  printf %s "$wanted" > "$pool" ||
    fail "the driver does not take CPUs $wanted: another enclave has some of them, or there is no such CPU. The kernel's" \
      "log (dmesg) says more."
fi

# --- memory ---
huge=$sysfs/devices/system/node/node$node/hugepages/hugepages-2048kB/nr_hugepages
if [ "$(cat "$huge")" -lt "$pages" ]; then
  printf %s "$pages" > "$huge"
  got=$(cat "$huge")
  [ "$got" -ge "$pages" ] ||
    fail "NUMA node $node gives $got of $pages huge pages of 2 MiB: its memory is fragmented, or too small. Reboot, which sets" \
      "them apart early, or lower enclave.nitro.memoryMib."
fi
