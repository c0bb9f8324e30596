//! Confirming and going back on simulated slots that restart, and fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use edge_hal::slots::{Refusal, SimSlots, Slot, SlotControl, SlotError};
use edge_ota::{
    confirm::{Confirmed, confirm},
    rollback::{RollbackError, Step, roll_back},
};

const TRIES: u8 = 3;

/// A box on which slot B was installed, started and confirmed.
fn updated() -> SimSlots {
    let mut slots = SimSlots::new(TRIES);
    slots.arm(Slot::B).unwrap();
    assert_eq!(slots.start().unwrap(), Some(Slot::B));
    assert!(!confirm(&mut slots, Some(Slot::B)).unwrap().was_good);
    slots
}

#[test]
fn a_confirmed_system_keeps_starting_and_one_that_is_not_falls_back() {
    let slots = updated();
    for _ in 0..10 {
        assert_eq!(slots.start().unwrap(), Some(Slot::B));
    }
    let mut slots = SimSlots::new(TRIES);
    slots.arm(Slot::B).unwrap();
    for _ in 0..TRIES {
        assert_eq!(slots.start().unwrap(), Some(Slot::B));
    }
    assert_eq!(slots.start().unwrap(), Some(Slot::A));
}

#[test]
fn confirming_again_writes_nothing() {
    let mut slots = updated();
    let changes = slots.state.read().unwrap().changes;
    let again = confirm(&mut slots, None).unwrap();
    assert_eq!(
        again,
        Confirmed {
            slot: Slot::B,
            was_good: true,
            repaired: false
        }
    );
    assert_eq!(slots.state.read().unwrap().changes, changes);
}

#[test]
fn another_slot_than_the_running_one_is_not_confirmed() {
    let mut slots = SimSlots::new(TRIES);
    slots.arm(Slot::B).unwrap();
    let before = slots.state.read().unwrap();
    let error = confirm(&mut slots, Some(Slot::B)).unwrap_err();
    assert!(
        matches!(error, SlotError::Refused(Refusal::NotRunning { .. })),
        "{error}"
    );
    let mut unknown = before;
    unknown.running = None;
    slots.state.set(unknown);
    let error = confirm(&mut slots, None).unwrap_err();
    assert!(
        matches!(error, SlotError::Refused(Refusal::RunningUnknown)),
        "{error}"
    );
    assert_eq!(slots.state.read().unwrap(), unknown);
}

#[test]
fn going_back_leaves_a_way_forward_and_is_said_once() {
    let mut slots = updated();
    assert_eq!(roll_back(&mut slots).unwrap().step, Step::Arm);
    assert_eq!(roll_back(&mut slots).unwrap().step, Step::Already);
    // The old system does not come up either: the box returns to the one that was confirmed.
    for _ in 0..TRIES {
        assert_eq!(slots.start().unwrap(), Some(Slot::A));
    }
    assert_eq!(slots.start().unwrap(), Some(Slot::B));
}

#[test]
fn a_system_on_trial_is_given_up_for_the_one_before() {
    let mut slots = SimSlots::new(TRIES);
    slots.arm(Slot::B).unwrap();
    slots.start().unwrap();
    let rollback = roll_back(&mut slots).unwrap();
    assert_eq!((rollback.to, rollback.step), (Slot::A, Step::GiveUp));
    for _ in 0..5 {
        assert_eq!(slots.start().unwrap(), Some(Slot::A));
    }
}

#[test]
fn a_slot_that_never_worked_is_nothing_to_go_back_to() {
    let mut slots = SimSlots::new(TRIES);
    let error = roll_back(&mut slots).unwrap_err();
    assert!(
        matches!(error, RollbackError::NeverWorked(Slot::B)),
        "{error}"
    );
    assert_eq!(slots.state.read().unwrap().changes, 0);
}

#[test]
fn storage_that_fails_is_told_and_a_later_try_succeeds() {
    let mut slots = SimSlots::new(TRIES);
    slots.arm(Slot::B).unwrap();
    slots.start().unwrap();
    slots.state.fail("card");
    assert!(confirm(&mut slots, None).is_err());
    assert!(roll_back(&mut slots).is_err());
    slots.state.recover();
    assert_eq!(confirm(&mut slots, None).unwrap().slot, Slot::B);
}
