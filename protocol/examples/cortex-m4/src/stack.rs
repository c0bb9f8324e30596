//! How much stack the firmware has used: `cortex-m-rt` paints it before `main`.

use core::ptr;

use cortex_m_rt::STACK_PAINT_VALUE;

unsafe extern "C" {
    /// Lowest address of the stack, from the linker script.
    static _stack_end: u32;
    /// The address above its highest.
    static _stack_start: u32;
}

/// Bytes of the stack that have been written since the start.
pub fn used_bytes() -> usize {
    let (mut lowest, top) = (&raw const _stack_end, &raw const _stack_start);
    // SAFETY: all addresses between the two are RAM, aligned to 4 bytes; the top is where it ends.
    while lowest < top && unsafe { ptr::read_volatile(lowest) } == STACK_PAINT_VALUE {
        lowest = lowest.wrapping_add(1);
    }
    top as usize - lowest as usize
}
