//! Slots of Qualcomm's ABL: attribute bits of the GPT entries of `boot_a` and `boot_b`, followed by the board's other
//! kernel and root partitions. It changes nothing else: no XBL, no `bBootLunEn`, no type GUID.
//!
//! ABL decides by `boot_a` and `boot_b` alone, so the disk that holds them is written last and is the commit point:
//! before it the old slot starts, after it the new one. `docs/boot-slots.md` has the order of writes and its reasons.

pub(crate) mod attributes;
pub mod gpt;
pub mod journal;

use self::{
    attributes::{ACTIVE, MAX_TRIES, Pair},
    gpt::{Gpt, GptError},
    journal::{Change, Journal},
};
use super::{
    SlotControl, SlotError, SlotStatus, Unfinished,
    block::BlockDevice,
    policy::{Fallback, Slot, SlotTable},
    running::BootLun,
    state_file::StateFile,
};

/// The pair that ABL decides by.
const BOOT: &str = "boot";
/// The pair whose types ABL compares those of [`BOOT`] with.
const ABL: &str = "abl";

/// A disk with slotted partitions.
pub struct AblDisk<D> {
    /// Its name in messages, such as `/dev/sda`.
    pub name: String,
    /// Its logical unit.
    pub lun: u8,
    /// The disk.
    pub device: D,
    /// Names of its slotted kernel and root partitions, without the suffix.
    pub partitions: Vec<String>,
}

/// What ABL demands of a slot beyond its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainCheck {
    /// Nothing: proved on a board of this kind.
    None,
    /// Types that differ from those of the slot's `abl` partition; on UFS also the boot LUN (`ValidateSlotGuids`).
    Required {
        /// What UFS starts from; none on other storage.
        boot_lun: Option<BootLun>,
    },
}

/// Slots of Qualcomm's ABL.
pub struct AblSlots<D, J> {
    disks: Vec<AblDisk<D>>,
    journal: J,
    tries: u8,
    running: Option<Slot>,
    chain: ChainCheck,
}

/// A pair of entries of one disk.
struct Entries {
    partition: String,
    a: usize,
    b: usize,
}

impl Entries {
    fn find(gpt: &Gpt, partition: &str) -> Result<Self, GptError> {
        let index = |slot: Slot| {
            let name = format!("{partition}{}", slot.suffix());
            gpt.find(&name)?.ok_or(GptError::NoPartition(name))
        };
        Ok(Self {
            partition: partition.to_owned(),
            a: index(Slot::A)?,
            b: index(Slot::B)?,
        })
    }

    fn read(&self, gpt: &Gpt) -> Pair {
        Pair {
            a: gpt.attributes(self.a),
            b: gpt.attributes(self.b),
        }
    }

    fn set(&self, gpt: &mut Gpt, pair: Pair) {
        gpt.set_attributes(self.a, pair.a);
        gpt.set_attributes(self.b, pair.b);
    }
}

/// The tables of all disks as they were read, and the slots that they state.
struct Tables {
    disks: Vec<(Gpt, Vec<Entries>)>,
    slots: SlotTable,
    /// Whether the entries of `boot` were ever written by ABL or by us.
    started: bool,
}

impl Tables {
    /// Sets what every pair says to what `slots` says, in memory.
    fn apply(&mut self, slots: &SlotTable, encode_boot: bool) {
        let Some(first) = slots.first else { return };
        for (gpt, pairs) in &mut self.disks {
            for pair in pairs {
                let old = pair.read(gpt);
                if pair.partition != BOOT {
                    pair.set(gpt, attributes::follow(old, first));
                } else if encode_boot {
                    pair.set(gpt, attributes::encode(old, slots));
                }
            }
        }
    }

    fn disks_agree(&self) -> bool {
        let Some(first) = self.slots.first else {
            return true;
        };
        !self.started
            || self.disks.iter().all(|(gpt, pairs)| {
                pairs
                    .iter()
                    .filter(|pair| pair.partition != BOOT)
                    .all(|pair| {
                        let old = pair.read(gpt);
                        attributes::follow(old, first) == old
                    })
            })
    }
}

impl<D: BlockDevice + Send, J: StateFile + Send> AblSlots<D, J> {
    /// The slots of `disks`, the last of which holds `boot_a` and `boot_b`. `journal` keeps what is being changed;
    /// it must outlive a power cut. `running` is what the kernel's command line says.
    ///
    /// # Errors
    /// [`SlotError::Tries`] and [`SlotError::CommitDisk`].
    pub fn new(
        disks: Vec<AblDisk<D>>,
        journal: J,
        tries: u8,
        running: Option<Slot>,
        chain: ChainCheck,
    ) -> Result<Self, SlotError> {
        if tries == 0 || tries > MAX_TRIES {
            return Err(SlotError::Tries {
                tries,
                max: MAX_TRIES,
            });
        }
        let holds_boot = |disk: &AblDisk<D>| disk.partitions.iter().any(|name| name == BOOT);
        let (last, others) = disks.split_last().ok_or(SlotError::CommitDisk)?;
        if !holds_boot(last) || others.iter().any(holds_boot) {
            return Err(SlotError::CommitDisk);
        }
        Ok(Self {
            disks,
            journal,
            tries,
            running,
            chain,
        })
    }

    fn read(&mut self) -> Result<Tables, SlotError> {
        let mut disks = Vec::new();
        let mut boot = None;
        for disk in &mut self.disks {
            let failed = |source| SlotError::Gpt {
                disk: disk.name.clone(),
                source,
            };
            let gpt = Gpt::read(&mut disk.device).map_err(failed)?;
            let mut pairs = Vec::new();
            for partition in &disk.partitions {
                let pair = Entries::find(&gpt, partition).map_err(failed)?;
                if partition == BOOT {
                    boot = Some(pair.read(&gpt));
                }
                pairs.push(pair);
            }
            disks.push((gpt, pairs));
        }
        let boot = boot.ok_or(SlotError::CommitDisk)?;
        Ok(Tables {
            disks,
            slots: attributes::decode(boot),
            started: (boot.a | boot.b) & ACTIVE != 0,
        })
    }

    fn unfinished(&mut self, tables: &Tables) -> Result<Option<Unfinished>, SlotError> {
        let journal = self.journal.read().map_err(|source| SlotError::Journal {
            operation: "read",
            source,
        })?;
        if let Some(bytes) = journal {
            let committed = Journal::decode(&bytes)
                .is_ok_and(|journal| tables.slots.first == Some(journal.first));
            return Ok(Some(Unfinished::Change { committed }));
        }
        if tables.disks.iter().any(|(gpt, _)| !gpt.copies_agree()) {
            return Ok(Some(Unfinished::CopiesDiffer));
        }
        if !tables.disks_agree() {
            return Ok(Some(Unfinished::DisksDisagree));
        }
        Ok(None)
    }

    /// Writes what differs, in the order of the disks.
    fn write(&mut self, tables: &mut Tables) -> Result<(), SlotError> {
        for (disk, (gpt, _)) in self.disks.iter_mut().zip(&mut tables.disks) {
            if gpt.needs_write() {
                gpt.write(&mut disk.device)
                    .map_err(|source| SlotError::Gpt {
                        disk: disk.name.clone(),
                        source,
                    })?;
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        decide: impl FnOnce(SlotTable) -> Result<SlotTable, SlotError>,
    ) -> Result<(), SlotError> {
        self.repair()?;
        let mut tables = self.read()?;
        let old = tables.slots;
        let new = decide(old)?;
        if new == old {
            return Ok(());
        }
        let before: Vec<Pair> = pairs(&tables).map(|(gpt, pair)| pair.read(gpt)).collect();
        tables.apply(&new, true);
        let mut changes = Vec::new();
        for ((disk, gpt, pair), old) in self
            .disks
            .iter()
            .zip(&tables.disks)
            .flat_map(|(disk, (gpt, pairs))| pairs.iter().map(move |pair| (disk, gpt, pair)))
            .zip(before)
        {
            let new = pair.read(gpt);
            for (slot, old, new) in [(Slot::A, old.a, new.a), (Slot::B, old.b, new.b)] {
                if old != new {
                    changes.push(Change {
                        lun: disk.lun,
                        partition: format!("{}{}", pair.partition, slot.suffix()),
                        old,
                        new,
                    });
                }
            }
        }
        let journal = Journal {
            first: new.first.unwrap_or(Slot::A),
            changes,
        };
        self.journal
            .write(&journal.encode())
            .map_err(|source| SlotError::Journal {
                operation: "write",
                source,
            })?;
        self.write(&mut tables)?;
        self.forget_journal()
    }

    fn forget_journal(&mut self) -> Result<(), SlotError> {
        self.journal.remove().map_err(|source| SlotError::Journal {
            operation: "remove",
            source,
        })
    }

    /// Whether ABL would start `slot` at all.
    fn check_chain(&mut self, slot: Slot) -> Result<(), SlotError> {
        let ChainCheck::Required { boot_lun } = self.chain else {
            return Ok(());
        };
        if let Some(boot_lun) = boot_lun
            && boot_lun != BootLun::Of(slot)
        {
            return Err(SlotError::BootLun { slot });
        }
        let tables = self.read()?;
        let types = |partition: &str| {
            let mut found = Vec::new();
            for (gpt, _) in &tables.disks {
                for slot in Slot::BOTH {
                    if let Ok(Some(index)) = gpt.find(&format!("{partition}{}", slot.suffix())) {
                        found.push(gpt.type_guid(index).to_vec());
                    }
                }
            }
            found
        };
        // Both of each: ABL swaps the types of all pairs when it falls back by itself.
        let abl = types(ABL);
        if types(BOOT).iter().any(|boot| abl.contains(boot)) {
            return Err(SlotError::TypeGuid { slot });
        }
        Ok(())
    }
}

fn pairs(tables: &Tables) -> impl Iterator<Item = (&Gpt, &Entries)> {
    tables
        .disks
        .iter()
        .flat_map(|(gpt, pairs)| pairs.iter().map(move |pair| (gpt, pair)))
}

impl<D: BlockDevice + Send, J: StateFile + Send> SlotControl for AblSlots<D, J> {
    fn status(&mut self) -> Result<SlotStatus, SlotError> {
        let tables = self.read()?;
        let unfinished = self.unfinished(&tables)?;
        Ok(SlotStatus {
            table: tables.slots,
            running: self.running,
            next: tables.slots.next(Fallback::Good),
            unfinished,
        })
    }

    fn arm(&mut self, slot: Slot) -> Result<(), SlotError> {
        let (running, tries) = (self.running, self.tries);
        self.check_chain(slot)?;
        self.change(|table| Ok(table.armed(running, slot, tries)?))
    }

    fn mark_good(&mut self, slot: Slot) -> Result<(), SlotError> {
        let (running, tries) = (self.running, self.tries);
        self.change(|table| Ok(table.proved(running, slot, tries)?))
    }

    fn mark_dead(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.change(|table| Ok(table.given_up(slot)?))
    }

    fn repair(&mut self) -> Result<(), SlotError> {
        let mut tables = self.read()?;
        if self.unfinished(&tables)?.is_none() {
            return Ok(());
        }
        // The last disk says which slot comes first, and keeps saying it: everything else follows it.
        let slots = tables.slots;
        tables.apply(&slots, false);
        self.write(&mut tables)?;
        self.forget_journal()
    }
}
