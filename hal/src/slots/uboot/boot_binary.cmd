# Slots in U-Boot's own redundant environment. Goes with hal/src/slots/uboot/binary.rs.
#
# Before this text the image's script sets slot_start: what loads and starts ${slot} (A or B), with edge.slot=${slot}
# for the kernel, and returns when it cannot. U-Boot is built with CONFIG_SYS_REDUNDAND_ENVIRONMENT. Needs: setexpr,
# saveenv.

test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "A B"
test -n "${BOOT_A_GOOD}" || setenv BOOT_A_GOOD 0
test -n "${BOOT_B_GOOD}" || setenv BOOT_B_GOOD 0
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 3
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 3

# The loop has a variable of its own: `${}` finds the environment's before the loop's.
# A good slot starts without a write. Another one pays with a try first.
for next in ${BOOT_ORDER}; do
  setenv slot ${next}
  setenv go 0
  if test "${slot}" = "A"; then setenv good ${BOOT_A_GOOD}; setenv left ${BOOT_A_LEFT}; fi
  if test "${slot}" = "B"; then setenv good ${BOOT_B_GOOD}; setenv left ${BOOT_B_LEFT}; fi
  if test "${good}" = "1"; then
    setenv go 1
  elif test "${left}" != "0"; then
    setexpr BOOT_${slot}_LEFT ${left} - 1
    saveenv
    setenv go 1
  fi
  if test "${go}" = "1"; then echo "starting slot ${slot}"; run slot_start; fi
done
echo "no slot starts"
