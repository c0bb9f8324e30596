//! The board's serial line, CMSDK APB UART (Arm DDI 0479, section 4.3). At its other end is what speaks TCP: a modem, or
//! QEMU.

use core::{convert::Infallible, future::poll_fn, task::Poll};

use embedded_io_async::{ErrorType, Read, Write};

/// UART 0 on AN386 (Arm DAI 0386, table 3-4).
const BASE: usize = 0x4000_4000;
const DATA: usize = 0x0;
const STATE: usize = 0x4;
const CONTROL: usize = 0x8;
const BAUD_DIVIDER: usize = 0x10;

const TRANSMITTER_FULL: u32 = 1 << 0;
const RECEIVER_FULL: u32 = 1 << 1;
const ENABLE_BOTH: u32 = 0b11;
/// 25 MHz / 16 = 1.56 Mbit/s, the fastest.
const FASTEST: u32 = 16;

/// The serial line; there is one.
pub struct Uart(());

impl Uart {
    /// Takes the line into use.
    ///
    /// # Safety
    /// To be called once, so that nobody else touches the registers.
    pub unsafe fn start() -> Self {
        let uart = Self(());
        uart.write_register(BAUD_DIVIDER, FASTEST);
        uart.write_register(CONTROL, ENABLE_BOTH);
        uart
    }

    fn read_register(&self, offset: usize) -> u32 {
        // SAFETY: a register of the UART that `self` owns, aligned to 4 bytes.
        unsafe { core::ptr::read_volatile((BASE + offset) as *const u32) }
    }

    fn write_register(&self, offset: usize, value: u32) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile((BASE + offset) as *mut u32, value) }
    }

    fn has(&self, state: u32) -> bool {
        self.read_register(STATE) & state != 0
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl Read for Uart {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(first) = buffer.first_mut() else {
            return Ok(0);
        };
        *first = poll_fn(|_| {
            if self.has(RECEIVER_FULL) {
                Poll::Ready(self.read_register(DATA) as u8)
            } else {
                Poll::Pending
            }
        })
        .await;
        Ok(1)
    }
}

impl Write for Uart {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let Some(first) = bytes.first() else {
            return Ok(0);
        };
        while self.has(TRANSMITTER_FULL) {}
        self.write_register(DATA, u32::from(*first));
        Ok(1)
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
