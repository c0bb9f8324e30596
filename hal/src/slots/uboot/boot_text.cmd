# Slots in two text files, for U-Boot. Goes with hal/src/slots/uboot/text.rs, which writes the same files.
#
# Before this text the image's script sets:
#   slots_file   the file's name from the top of its FAT, as the board file's slots.file has it below its mount point
#   slot_start   what loads and starts ${slot} (A or B), with edge.slot=${slot} for the kernel; returns when it cannot
# and devtype, devnum and distro_bootpart are set, as distro boot does. Needs: env import/export, setexpr, crc32, itest,
# FAT with write. All numbers are hexadecimal.
#
# Of FILE.0 and FILE.1 the valid one with the higher counter counts; a change writes the other one.

setenv slots_addr ${ramdisk_addr_r}
setexpr slots_tmp ${slots_addr} + 1000
setenv slots_vars "BOOT_A_GOOD BOOT_A_LEFT BOOT_B_GOOD BOOT_B_LEFT BOOT_ORDER BOOT_SEQ"
setenv slots_summed 59
setenv slots_bytes 6b

# Reads FILE.${n}; ok is 1 when it is whole. A failed load leaves the old filesize, hence the 0.
setenv slots_read 'setenv ok 0; setenv filesize 0; if load ${devtype} ${devnum}:${distro_bootpart} ${slots_addr} ${slots_file}.${n}; then if test "${filesize}" = "${slots_bytes}"; then crc32 ${slots_addr} ${slots_summed} ${slots_tmp}; setexpr.l sum *${slots_tmp} "|" 80000000; setenv BOOT_SUM; env import -t ${slots_addr} ${slots_bytes} ${slots_vars} BOOT_SUM; if test "${sum}" = "${BOOT_SUM}"; then setenv ok 1; fi; fi; fi'

# Writes FILE.${n} with the next counter; then the other one is the spare.
setenv slots_save 'setexpr BOOT_SEQ ${BOOT_SEQ} + 1; env export -t ${slots_addr} ${slots_vars}; crc32 ${slots_addr} ${slots_summed} ${slots_tmp}; setexpr.l BOOT_SUM *${slots_tmp} "|" 80000000; env export -t ${slots_addr} ${slots_vars} BOOT_SUM; setenv n ${spare}; fatwrite ${devtype} ${devnum}:${distro_bootpart} ${slots_addr} ${slots_file}.${n} ${slots_bytes}; setexpr spare 1 - ${spare}'

setenv seq0 0
setenv seq1 0
setenv n 0
run slots_read
if test "${ok}" = "1"; then setenv seq0 ${BOOT_SEQ}; fi
setenv n 1
run slots_read
if test "${ok}" = "1"; then setenv seq1 ${BOOT_SEQ}; fi
setenv spare 1
setenv n 0
if itest ${seq1} -gt ${seq0}; then setenv spare 0; setenv n 1; fi
run slots_read
if test "${ok}" != "1"; then
  setenv spare 0
  setenv BOOT_SEQ 80000000
  setenv BOOT_ORDER "A B"
  setenv BOOT_A_GOOD 0
  setenv BOOT_B_GOOD 0
  setenv BOOT_A_LEFT 3
  setenv BOOT_B_LEFT 3
fi

# The loop has a variable of its own: `${}` finds the environment's before the loop's.
# A good slot starts without a write. Another one pays with a try first. A slot that cannot even be loaded returns
# here, and the next one has its turn.
for next in ${BOOT_ORDER}; do
  setenv slot ${next}
  setenv go 0
  if test "${slot}" = "A"; then setenv good ${BOOT_A_GOOD}; setenv left ${BOOT_A_LEFT}; fi
  if test "${slot}" = "B"; then setenv good ${BOOT_B_GOOD}; setenv left ${BOOT_B_LEFT}; fi
  if test "${good}" = "1"; then
    setenv go 1
  elif test "${left}" != "0"; then
    setexpr BOOT_${slot}_LEFT ${left} - 1
    run slots_save
    setenv go 1
  fi
  if test "${go}" = "1"; then echo "starting slot ${slot}"; run slot_start; fi
done
echo "no slot starts"
