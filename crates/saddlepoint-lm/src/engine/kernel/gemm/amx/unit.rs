//! The unit itself: whether it is there, and 32 x 32 sums.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_mul_ps, _mm512_set1_ps,
};
use std::sync::LazyLock;

/// Rows and columns that are summed together: two tiles each.
pub(super) const SIDE: usize = 32;
/// Depth of a step.
pub(super) const STEP: usize = 32;
/// Numbers of 16 bits in a tile.
pub(super) const TILE: usize = 16 * STEP;

/// Numbers of 16 bits that are asked for in a step.
pub(super) const AHEAD: usize = 12 * 32;

/// Asks for the lines of a tile at `p` and so many bytes, into the second-level cache: a part of an `asm!`.
macro_rules! ask_tile {
    ($bytes:literal) => {
        concat!(
            ".irp line, 0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960\n",
            "prefetcht1 [{p} + ",
            $bytes,
            " + \\line]\n",
            ".endr"
        )
    };
}
pub(in crate::engine::kernel) use ask_tile;

/// Whether the processor has the unit and the system lets this process use it, which has to be asked for.
pub(in crate::engine::kernel) fn available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        // Processors with AMX have all of these.
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        // Leaf 7: bf16 tiles are bit 22, tiles bit 24 and 8-bit tiles bit 25.
        vectors && __cpuid_count(7, 0).edx >> 22 & 0b1101 == 0b1101 && permitted()
    });
    *AVAILABLE
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "there is no safe way to ask the system")]
fn permitted() -> bool {
    /// Asks for the use of a part of the processor's state; the part with the tiles.
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const TILES: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and changes what this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILES) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// 32 x 32 sums.
#[repr(align(64))]
#[derive(Debug, Default)]
pub(super) struct Sums(pub(super) [[f32; SIDE]; SIDE]);

/// The tiles of this thread, ready for use; given back when dropped, since a thread with tiles in use takes longer to
/// switch to.
pub(in crate::engine::kernel) struct Tiles(());

impl Tiles {
    /// Eight tiles of 16 rows of 64 bytes.
    ///
    /// # Panics
    /// The unit is not there.
    #[allow(unsafe_code, reason = "instructions that the compiler does not know")]
    pub(in crate::engine::kernel) fn configured() -> Self {
        assert!(available(), "the matrix unit");
        let mut configuration = [0u8; 64];
        configuration[0] = 1;
        for tile in 0..8 {
            configuration[16 + 2 * tile] = 64;
            configuration[48 + tile] = 16;
        }
        // SAFETY: the unit is there, and the configuration is one of its format.
        unsafe {
            asm!("ldtilecfg [{at}]", at = in(reg) &raw const configuration, options(nostack, readonly));
        }
        Self(())
    }

    /// `left` times `right`, packed, over `steps` with a right operand of one part and then of three.
    ///
    /// Asks for 12 lines of `ahead` in each step, into the second-level cache.
    ///
    /// The sums are held in tiles 0 to 3. In a step the parts meet in an order in which few of them are loaded twice.
    ///
    /// # Panics
    /// An operand is shorter than its steps.
    #[allow(unsafe_code, reason = "as above")]
    #[allow(clippy::unused_self, reason = "it says that the tiles are configured")]
    pub(super) fn sums(
        &self,
        left: &[u16],
        right: &[u16],
        steps: (usize, usize),
        ahead: &[u16],
        sums: &mut Sums,
    ) {
        assert!(
            left.len() >= (steps.0 + steps.1) * 6 * TILE && right.len() >= (steps.0 + 3 * steps.1) * 2 * TILE
        );
        // SAFETY: the tiles are configured; every step reads the six tiles of `left` and the two or six of `right` that
        // belong to it, and the four tiles of sums have room in `sums`.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "test {narrow}, {narrow}",
                "jz 3f",
                "2:",
                "tileloadd tmm6, [{b} + {line}]",
                "tileloadd tmm7, [{b} + {line} + 0x400]",
                "tileloadd tmm4, [{a} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{p} + 0x0]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 0x40]",
                "tileloadd tmm5, [{a} + {line} + 0x400]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{p} + 0x80]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 0xc0]",
                "tileloadd tmm4, [{a} + {line} + 0x800]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{p} + 0x100]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 0x140]",
                "tileloadd tmm5, [{a} + {line} + 0xc00]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{p} + 0x180]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 0x1c0]",
                "tileloadd tmm4, [{a} + {line} + 0x1000]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{p} + 0x200]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 0x240]",
                "tileloadd tmm5, [{a} + {line} + 0x1400]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{p} + 0x280]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 0x2c0]",
                "add {a}, 0x1800",
                "add {b}, 0x800",
                "add {p}, 0x300",
                "dec {narrow}",
                "jnz 2b",
                "3:",
                "test {wide}, {wide}",
                "jz 5f",
                "4:",
                // h h'
                "tileloadd tmm4, [{a} + {line}]",
                "tileloadd tmm6, [{b} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line} + 0x400]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 0x0]",
                "tileloadd tmm5, [{a} + {line} + 0x400]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 0x40]",
                // h l'
                "tileloadd tmm6, [{b} + {line} + 0x1000]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line} + 0x1400]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 0x80]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 0xc0]",
                // h m'
                "tileloadd tmm6, [{b} + {line} + 0x800]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line} + 0xc00]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 0x100]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 0x140]",
                // m m'
                "tileloadd tmm4, [{a} + {line} + 0x800]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 0x180]",
                "tileloadd tmm5, [{a} + {line} + 0xc00]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 0x1c0]",
                // m h'
                "tileloadd tmm6, [{b} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {line} + 0x400]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 0x200]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 0x240]",
                // l h'
                "tileloadd tmm4, [{a} + {line} + 0x1000]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{p} + 0x280]",
                "tileloadd tmm5, [{a} + {line} + 0x1400]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{p} + 0x2c0]",
                "add {a}, 0x1800",
                "add {b}, 0x1800",
                "add {p}, 0x300",
                "dec {wide}",
                "jnz 4b",
                "5:",
                "tilestored [{c} + 2*{line}], tmm0",
                "tilestored [{c} + 2*{line} + 0x40], tmm1",
                "tilestored [{c} + 2*{line} + 0x800], tmm2",
                "tilestored [{c} + 2*{line} + 0x840], tmm3",
                a = inout(reg) left.as_ptr() => _,
                b = inout(reg) right.as_ptr() => _,
                p = inout(reg) ahead.as_ptr() => _,
                c = in(reg) sums,
                narrow = inout(reg) steps.0 => _,
                wide = inout(reg) steps.1 => _,
                line = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// `out = onto + scale sums`, with zeros for no `onto`: at most 32 numbers.
///
/// # Safety
/// The processor has the unit; `onto` may be read and `out` written for as many numbers as `columns`.
#[allow(unsafe_code, reason = "`onto` and `out` may be the same memory")]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn place(
    sums: &[f32; SIDE],
    columns: usize,
    scale: f32,
    onto: Option<*const f32>,
    out: *mut f32,
) {
    let scale = _mm512_set1_ps(scale);
    for (half, sums) in sums.as_chunks::<16>().0.iter().enumerate() {
        let mask = ((1_u32 << columns.saturating_sub(16 * half).min(16)) - 1) as u16;
        // SAFETY: 16 numbers.
        let sums = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
        let value = match onto {
            // SAFETY: the caller's promise, for the numbers of the mask.
            Some(onto) => _mm512_fmadd_ps(scale, sums, unsafe {
                _mm512_maskz_loadu_ps(mask, onto.wrapping_add(16 * half))
            }),
            None => _mm512_mul_ps(scale, sums),
        };
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_ps(out.wrapping_add(16 * half), mask, value) };
    }
}

impl Drop for Tiles {
    #[allow(unsafe_code, reason = "as above")]
    fn drop(&mut self) {
        // SAFETY: nothing uses the tiles of this thread any more.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}
