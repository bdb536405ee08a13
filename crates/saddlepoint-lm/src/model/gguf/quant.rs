//! Block formats of GGUF tensors, decoded to the same bits as the `gguf` Python package.
//!
//! A block is a run of weights that share scales. Notation: `d` scale of the block, `m` its offset, `q`
//! the stored integers. <https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/quants.py>

use half::f16;

use crate::model::Dtype;

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the format")]
pub enum Kind {
    Plain(Dtype),
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Weights in a block of the K family.
const K: usize = 256;

impl Kind {
    /// From the number in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Kind::Plain(Dtype::F32),
            1 => Kind::Plain(Dtype::F16),
            2 => Kind::Q4_0,
            3 => Kind::Q4_1,
            6 => Kind::Q5_0,
            7 => Kind::Q5_1,
            8 => Kind::Q8_0,
            12 => Kind::Q4K,
            13 => Kind::Q5K,
            14 => Kind::Q6K,
            30 => Kind::Plain(Dtype::Bf16),
            _ => return None,
        })
    }

    /// Weights in a block, and bytes it takes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Kind::Plain(dtype) => (1, dtype.size()),
            Kind::Q4_0 => (32, 2 + 16),
            Kind::Q4_1 => (32, 4 + 16),
            Kind::Q5_0 => (32, 2 + 4 + 16),
            Kind::Q5_1 => (32, 4 + 4 + 16),
            Kind::Q8_0 => (32, 2 + 32),
            Kind::Q4K => (K, 4 + 12 + K / 2),
            Kind::Q5K => (K, 4 + 12 + K / 8 + K / 2),
            Kind::Q6K => (K, K / 2 + K / 4 + K / 16 + 2),
        }
    }

    /// Decodes whole blocks.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let (weights, size) = self.block();
        let decode: fn(&[u8], &mut [f32]) = match self {
            Kind::Plain(dtype) => return dtype.decode(bytes, out),
            Kind::Q4_0 => q4_0,
            Kind::Q4_1 => q4_1,
            Kind::Q5_0 => q5_0,
            Kind::Q5_1 => q5_1,
            Kind::Q8_0 => q8_0,
            Kind::Q4K => q4_k,
            Kind::Q5K => q5_k,
            Kind::Q6K => q6_k,
        };
        for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(weights)) {
            decode(block, out);
        }
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Weight `i` of 32 whose low four bits lie in `packed`: first the low nibbles, then the high ones.
fn nibble(packed: &[u8], i: usize) -> u8 {
    if i < 16 { packed[i] & 15 } else { packed[i - 16] >> 4 }
}

/// `w = d (q - 8)`.
fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half(block);
    for (i, w) in out.iter_mut().enumerate() {
        *w = d * (f32::from(nibble(&block[2..], i)) - 8.0);
    }
}

/// `w = d q + m`.
fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block), half(&block[2..]));
    for (i, w) in out.iter_mut().enumerate() {
        *w = d * f32::from(nibble(&block[4..], i)) + m;
    }
}

/// Five bits: the highest ones of all 32 weights lie together in `high`.
fn five(high: &[u8], packed: &[u8], i: usize) -> u8 {
    nibble(packed, i) | ((high[i / 8] >> (i % 8)) & 1) << 4
}

/// `w = d (q - 16)`.
fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half(block);
    for (i, w) in out.iter_mut().enumerate() {
        *w = d * (f32::from(five(&block[2..], &block[6..], i)) - 16.0);
    }
}

/// `w = d q + m`.
fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block), half(&block[2..]));
    for (i, w) in out.iter_mut().enumerate() {
        *w = d * f32::from(five(&block[4..], &block[8..], i)) + m;
    }
}

/// `w = q d`.
fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half(block);
    for (w, &q) in out.iter_mut().zip(&block[2..]) {
        *w = f32::from(q.cast_signed()) * d;
    }
}

/// Scale and offset (six bits each) of sub-block `j` of 8, from the 12 bytes that hold all of them.
fn scale_and_offset(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, offset) = if j < 4 {
        (packed[j] & 0x3f, packed[j + 4] & 0x3f)
    } else {
        let low = packed[j + 4];
        ((low & 0x0f) | ((packed[j - 4] >> 2) & 0x30), (low >> 4) | ((packed[j] >> 2) & 0x30))
    };
    (f32::from(scale), f32::from(offset))
}

/// `w = (d s_j) q - (dmin m_j)` for each sub-block `j` of 32 weights, four bits each.
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin, packed) = (half(block), half(&block[2..]), &block[16..]);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_offset(&block[4..], j);
        let (scale, offset) = (d * s, dmin * m);
        let (bytes, shift) = (&packed[j / 2 * 32..], j % 2 * 4);
        for (w, &byte) in out.iter_mut().zip(bytes) {
            *w = scale * f32::from((byte >> shift) & 0x0f) - offset;
        }
    }
}

/// As Q4_K with a fifth bit: bit `j` of byte `i` belongs to weight `i` of sub-block `j`.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin, high, packed) = (half(block), half(&block[2..]), &block[16..48], &block[48..]);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_offset(&block[4..], j);
        let (scale, offset) = (d * s, dmin * m);
        let (bytes, shift) = (&packed[j / 2 * 32..], j % 2 * 4);
        for ((w, &byte), &high) in out.iter_mut().zip(bytes).zip(high) {
            *w = scale * f32::from(((byte >> shift) & 0x0f) | ((high >> j) & 1) << 4) - offset;
        }
    }
}

/// `w = (d s) (q - 32)` with a signed scale `s` for each 16 weights; low four and high two bits apart.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half(&block[208..]));
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (part, quarter) = (j / 4, j % 4);
        let low = &low[part * 64 + quarter % 2 * 32..];
        let high = &high[part * 32..];
        for (i, w) in out.iter_mut().enumerate() {
            let q = ((low[i] >> (quarter / 2 * 4)) & 0x0f) | ((high[i] >> (quarter * 2)) & 3) << 4;
            let scale = d * f32::from(scales[j * 2 + i / 16].cast_signed());
            *w = scale * (f32::from(q) - 32.0);
        }
    }
}
