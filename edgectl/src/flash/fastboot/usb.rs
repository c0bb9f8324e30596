//! Fastboot over USB: a command is one bulk transfer, an answer another.
//!
//! Boards are found and interfaces recognised by the crate `fastboot-protocol`; the transfers are made here, because
//! that crate's wait for ever. Not tried on hardware yet: this needs a board on a USB port.

use std::{io, thread, time::Duration};

use fastboot_protocol::nusb::NusbFastBoot;
use nusb::{
    DeviceInfo, Endpoint, MaybeFuture as _,
    descriptors::TransferType,
    transfer::{Buffer, Bulk, Direction, In, Out, TransferError},
};
use serde::Serialize;

use super::transport::{Transport, TransportError};
use crate::flash::target::FastbootAddress;

/// How long a board may take to accept a part of a download.
const SEND_MAX: Duration = Duration::from_secs(60);
/// How long a board may be away after its port was reset.
const RETURN_MAX: Duration = Duration::from_secs(10);
/// How often we look whether it is back.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Bytes of a transfer.
const TRANSFER_BYTES: usize = 1 << 20;

/// A board that is attached in fastboot mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedBoard {
    /// What `--to` takes for it.
    pub target: String,
    /// What it calls itself.
    pub product: Option<String>,
    /// USB vendor id.
    pub usb_vendor: u16,
    /// USB product id.
    pub usb_product: u16,
}

/// The boards that are attached in fastboot mode; none on a system without USB.
///
/// # Errors
/// [`TransportError::Usb`] when the system does not list its devices.
pub fn list() -> Result<Vec<ListedBoard>, TransportError> {
    Ok(attached()?.iter().map(ListedBoard::from).collect())
}

impl From<&DeviceInfo> for ListedBoard {
    fn from(info: &DeviceInfo) -> Self {
        let serial = info.serial_number().map(str::to_owned);
        Self {
            target: FastbootAddress::Usb { serial }.to_string(),
            product: info.product_string().map(str::to_owned),
            usb_vendor: info.vendor_id(),
            usb_product: info.product_id(),
        }
    }
}

fn attached() -> Result<Vec<DeviceInfo>, TransportError> {
    match nusb::list_devices().wait() {
        Ok(devices) => Ok(devices
            .filter(|info| NusbFastBoot::find_fastboot_interface(info).is_some())
            .collect()),
        Err(error) if error.kind() == nusb::ErrorKind::NotFound => Ok(Vec::new()),
        // A kernel without USB has no folder of USB devices.
        Err(_) if !std::path::Path::new("/sys/bus/usb/devices").exists() => Ok(Vec::new()),
        Err(source) => Err(TransportError::Usb {
            operation: "list",
            board: "USB devices".to_owned(),
            hint: "",
            source,
        }),
    }
}

/// A board on USB.
pub struct Usb {
    name: String,
    serial: Option<String>,
    /// None only while it is away.
    opened: Option<Opened>,
}

struct Opened {
    device: nusb::Device,
    output: Endpoint<Bulk, Out>,
    input: Endpoint<Bulk, In>,
}

impl Usb {
    /// Opens the board with this serial number, or the only one attached.
    ///
    /// # Errors
    /// [`TransportError::NoBoard`] and [`TransportError::Usb`].
    pub fn open(serial: Option<&str>) -> Result<Self, TransportError> {
        let found = attached()?;
        let info = choose(&found, serial)?;
        Ok(Self {
            name: ListedBoard::from(info).target,
            serial: info.serial_number().map(str::to_owned),
            opened: Some(open(info)?),
        })
    }

    fn opened(&mut self) -> Result<&mut Opened, TransportError> {
        let name = &self.name;
        let away = || TransportError::NoBoard(format!("{name} has not come back"));
        self.opened.as_mut().ok_or_else(away)
    }

    fn failed(&self, error: TransferError, waited: Duration) -> TransportError {
        let board = self.name.clone();
        match error {
            TransferError::Cancelled => TransportError::Silent { board, waited },
            error => TransportError::Lost {
                board,
                source: io::Error::other(error),
            },
        }
    }
}

fn choose<'a>(
    found: &'a [DeviceInfo],
    serial: Option<&str>,
) -> Result<&'a DeviceInfo, TransportError> {
    let by_serial =
        |info: &&DeviceInfo| serial.is_none_or(|serial| info.serial_number() == Some(serial));
    let mut matching = found.iter().filter(by_serial);
    let none = || {
        let of_serial = serial.map_or(String::new(), |serial| {
            format!(" with serial number {serial}")
        });
        TransportError::NoBoard(format!(
            "no board in fastboot mode{of_serial} on USB; bring it into that mode (docs/flashing.md), look at the cable, \
             and see `edgectl flash --list`"
        ))
    };
    let first = matching.next().ok_or_else(none)?;
    if matching.next().is_some() {
        let several =
            "several boards in fastboot mode on USB; name one: `edgectl flash --list` shows them";
        return Err(TransportError::NoBoard(several.to_owned()));
    }
    Ok(first)
}

fn open(info: &DeviceInfo) -> Result<Opened, TransportError> {
    let name = ListedBoard::from(info).target;
    let failed = |operation, hint| {
        let board = name.clone();
        move |source| TransportError::Usb {
            operation,
            board,
            hint,
            source,
        }
    };
    let no_interface =
        || TransportError::NoBoard(format!("{name} has no fastboot interface any more"));
    let number = NusbFastBoot::find_fastboot_interface(info).ok_or_else(no_interface)?;
    let permission =
        "; run the command as root (sudo), or allow your user to use the device by a udev rule";
    let device = info.open().wait().map_err(failed("open", permission))?;
    let busy = "; does another program, such as `fastboot`, use it?";
    let interface = device
        .claim_interface(number)
        .wait()
        .map_err(failed("claim", busy))?;
    let endpoint = |direction| {
        let endpoints = interface.descriptors().find_map(|setting| {
            let mut bulk = setting.endpoints().filter(|end| {
                end.transfer_type() == TransferType::Bulk && end.direction() == direction
            });
            bulk.next().map(|end| end.address())
        });
        endpoints.ok_or_else(no_interface)
    };
    let (output, input) = (endpoint(Direction::Out)?, endpoint(Direction::In)?);
    let output = interface.endpoint(output).map_err(failed("use", ""))?;
    let input = interface.endpoint(input).map_err(failed("use", ""))?;
    Ok(Opened {
        device,
        output,
        input,
    })
}

impl Transport for Usb {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let output = &mut self.opened()?.output;
        // A transfer of whole packets but the last: what is no multiple of the packet size ends the message.
        let most = TRANSFER_BYTES.next_multiple_of(output.max_packet_size());
        let sent = bytes.chunks(most).try_for_each(|part| {
            let sent = output.transfer_blocking(Buffer::from(part.to_vec()), SEND_MAX);
            sent.into_result().map(drop)
        });
        sent.map_err(|error| self.failed(error, SEND_MAX))
    }

    fn receive(&mut self, wait: Duration) -> Result<Vec<u8>, TransportError> {
        let input = &mut self.opened()?.input;
        let buffer = Buffer::new(input.max_packet_size());
        let answer = input.transfer_blocking(buffer, wait).into_result();
        let answer = answer.map_err(|error| self.failed(error, wait))?;
        Ok(answer.to_vec())
    }

    fn reopen(&mut self) -> Result<(), TransportError> {
        // The same as pulling the plug and putting it in again, without hands. A board that is gone already says so.
        if let Some(opened) = self.opened.take() {
            let _reset = opened.device.reset().wait();
        }
        let serial = self.serial.clone();
        let mut waited = Duration::ZERO;
        loop {
            match Self::open(serial.as_deref()) {
                Ok(again) => {
                    *self = again;
                    return Ok(());
                }
                Err(error) if waited >= RETURN_MAX => return Err(error),
                Err(_) => {
                    thread::sleep(LOOK_AGAIN);
                    waited += LOOK_AGAIN;
                }
            }
        }
    }
}
