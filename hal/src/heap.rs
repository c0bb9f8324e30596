//! How this process gives memory back to the system. Knows nothing of what the memory is for.

/// Blocks from this size are the system's own, in bytes: larger than any request of a sensor that sends numbers, smaller
/// than the weights of a model.
#[cfg(target_env = "gnu")]
const OWN_BLOCK_BYTES: libc::c_int = 1 << 20;

/// Has large blocks go back to the system as soon as they are freed; whether the allocator does so. Otherwise glibc takes
/// each freed block as a sign that more of its size will come, keeps blocks of up to 32 MiB, and holds for ever what
/// loading a model took for a moment (mallopt(3), `M_MMAP_THRESHOLD`).
pub fn give_back_large_blocks() -> bool {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt sets a number of the allocator, which takes its own lock.
        #[allow(unsafe_code, reason = "the allocator's settings have no safe form")]
        let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_BLOCK_BYTES) };
        is_set == 1
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn resident_pages() -> u64 {
        let text = fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn large_blocks_go_back_at_once() {
        assert!(give_back_large_blocks());
        let before = resident_pages();
        // The first would teach glibc to keep the others.
        let blocks: Vec<Vec<u8>> = (0..32).map(|_| vec![1; 4 << 20]).collect();
        let held = resident_pages() - before;
        drop(blocks);
        let left = resident_pages().saturating_sub(before);
        assert!(left * 4 < held, "{held} pages were held, {left} are left");
    }
}
