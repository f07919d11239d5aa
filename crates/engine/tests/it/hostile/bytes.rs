//! Bytes that are no frame, or that stand for more than they bring.

use ciborium::{Value, cbor};

use super::frames::{VERSION, ask, field, frame, members, prefix, read, record, request, signed, versioned};
use super::stage::{Stage, WOLF};

#[test]
fn bytes_that_are_no_frame_are_refused() {
    let mut stage = Stage::new(100);
    let real: Vec<_> = stage.said().filter(|bytes| read(bytes).is_some()).step_by(7).cloned().collect();
    let mut bad = vec![Vec::new(), vec![VERSION]];
    for length in 1..200 {
        bad.push((0..length).map(|_| stage.world.below(256) as u8).collect());
        // With the right version, so that the rest is looked at.
        bad.push(std::iter::once(VERSION).chain((1..length).map(|_| stage.world.below(256) as u8)).collect());
    }
    for whole in &real {
        for _ in 0..4 {
            let end = stage.world.below(whole.len() as u64) as usize;
            bad.push(whole[..end].to_vec());
        }
        bad.push([whole.as_slice(), &[0]].concat());
        for version in [0, 1, 3, 255] {
            bad.push([&[version], &whole[1..]].concat());
        }
    }
    assert!(bad.len() > 500, "{}", bad.len());
    // What is right for one of two ways to come is wrong for the other.
    for bytes in
        bad.into_iter().chain(real.iter().filter(|bytes| field(&read(bytes).unwrap(), "body").is_some()).cloned())
    {
        let refused = stage.refused("paris", |stage| stage.throw("paris", bytes.clone()));
        assert_eq!(refused, 1, "{bytes:?}");
        let refused = stage.refused("rennes", |stage| {
            let bytes = if read(&bytes).is_some() { vec![VERSION] } else { bytes.clone() };
            stage.whisper("rennes", bytes);
        });
        assert_eq!(refused, 1, "{bytes:?}");
    }
    stage.all_is_well();
}

#[test]
fn counts_and_lengths_that_nothing_stands_behind_are_refused() {
    let mut stage = Stage::new(101);
    let header = |major: u8, count: u64| [&[VERSION, major << 5 | 27], count.to_be_bytes().as_slice()].concat();
    let mut bad: Vec<Vec<u8>> = Vec::new();
    for major in 2..6 {
        for count in [1 << 20, 1 << 40, u64::MAX / 16, u64::MAX] {
            bad.push(header(major, count));
            // As the list of what is wanted.
            let mut want = versioned(VERSION, &cbor!({"Want" => {"items" => 0}}).unwrap());
            want.pop();
            want.extend(&header(major, count)[1..]);
            bad.push(want);
        }
    }
    // Nested without end, in three ways; and many times nothing, which is small as a frame and large when read.
    bad.push([vec![VERSION], vec![0x81; 1 << 20]].concat());
    bad.push([vec![VERSION], vec![0xc1; 1 << 20]].concat());
    bad.push([vec![VERSION], vec![0x9f; 1 << 20]].concat());
    bad.push([vec![VERSION], [0xa1, 0x61, b'a'].repeat(1 << 18)].concat());
    for nothing in [0x40, 0x60, 0x80, 0xa0, 0xf6] {
        let mut want = versioned(VERSION, &cbor!({"Want" => {"items" => 0}}).unwrap());
        want.pop();
        want.extend([0x9f].into_iter().chain(std::iter::repeat_n(nothing, 8_300_000)).chain([0xff]));
        bad.push(want);
    }
    let mut deep = ask(1, request(cbor!({"patch" => {"id" => "log", "patch" => 0}}).unwrap()));
    deep.pop();
    bad.push([deep, vec![0x81; 100_000]].concat());
    bad.push([vec![VERSION], vec![0; 8 << 20]].concat());
    for bytes in bad {
        let begin = bytes[..bytes.len().min(20)].to_vec();
        let refused = stage.refused("paris", |stage| stage.throw("paris", bytes));
        assert_eq!(refused, 1, "{begin:?}");
    }
    // More than anybody needs of what is right in itself.
    let too_many = [
        frame(&cbor!({"Want" => {"items" => vec![prefix("log"); 5000]}}).unwrap()),
        members(vec![signed(record(WOLF, "node-wolf", 1, Value::Map(Vec::new())), Vec::new()); 4098]),
    ];
    for bytes in too_many {
        assert_eq!(stage.refused("paris", |stage| stage.throw("paris", bytes)), 1);
    }
    stage.all_is_well();
}
