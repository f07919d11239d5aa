//! Collects what the engine wants done, and holds back what must be on disk first.

use std::collections::VecDeque;

use crate::{CallId, Output, RequestError, Token, Write};

/// Among so many writes of one step an earlier one of the same record is looked for.
const SEARCHED: usize = 64;

/// Outputs in order. What was added with [`Outbox::after`] is handed out once all that was written before it is stored.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    ready: Vec<Output>,
    writes: Vec<Write>,
    waiting: Vec<Output>,
    held: VecDeque<(Token, Vec<Output>)>,
    issued: u64,
    stored: u64,
    failed: bool,
    frozen: bool,
}

impl Outbox {
    /// Writes a record, with all other writes of this step. The last write of a record in a step is the one that counts, so
    /// the others are left out: what a step does to a replicant changes its index entry again and again.
    pub(crate) fn write(&mut self, write: Write) {
        match self.writes.iter_mut().rev().take(SEARCHED).find(|earlier| earlier.key() == write.key()) {
            Some(earlier) => *earlier = write,
            None => self.writes.push(write),
        }
    }

    /// Hands out at once: only what says nothing of any document.
    pub(crate) fn now(&mut self, output: Output) {
        self.ready.push(output);
    }

    /// Hands out when all that has been written so far is stored.
    pub(crate) fn after(&mut self, output: Output) {
        self.waiting.push(output);
    }

    /// Batches that are handed out and not stored yet.
    pub(crate) fn outstanding(&self) -> u64 {
        self.issued.saturating_sub(self.stored)
    }

    /// A batch is on disk.
    pub(crate) fn stored(&mut self, token: Token) {
        self.stored = self.stored.max(token.0);
        while self.held.front().is_some_and(|(held, _)| held.0 <= self.stored) {
            if let Some((_, outputs)) = self.held.pop_front() {
                self.ready.extend(outputs);
            }
        }
    }

    /// The disk failed: whoever waits for an answer is told, nothing else is handed out, and the process stops.
    pub(crate) fn store_failed(&mut self, error: &str) {
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        let held = std::mem::take(&mut self.held).into_iter().flat_map(|(_, outputs)| outputs);
        for output in held.chain(std::mem::take(&mut self.waiting)) {
            if let Output::Answer { request, .. } = output {
                let message = format!(
                    "the change could not be stored ({error}); this node stops: mend its disk and start it again"
                );
                self.ready.push(Output::Answer { request, answer: Err(RequestError::Storage { message }) });
            }
        }
        self.ready.push(Output::Stop { reason: format!("storage failed: {error}") });
    }

    /// The disk is full: nothing that is outstanding will be stored. Whoever waits for an answer gets `refusal`, all else
    /// that was held back is forgotten, and from now on writes are dropped and nothing waits for them. The driver calls
    /// that were never handed out.
    pub(crate) fn freeze(&mut self, refusal: &RequestError) -> Vec<CallId> {
        self.frozen = true;
        self.stored = self.issued;
        self.writes.clear();
        let mut never_called = Vec::new();
        let held = std::mem::take(&mut self.held).into_iter().flat_map(|(_, outputs)| outputs);
        for output in held.chain(std::mem::take(&mut self.waiting)) {
            match output {
                Output::Answer { request, answer } => {
                    let answer = answer.and(Err(refusal.clone()));
                    self.ready.push(Output::Answer { request, answer });
                }
                Output::CallDriver { call, .. } => never_called.push(call),
                _ => {}
            }
        }
        never_called
    }

    /// Writes are stored again.
    pub(crate) fn thaw(&mut self) {
        self.frozen = false;
    }

    /// What can be done now, in order.
    pub(crate) fn drain(&mut self) -> Vec<Output> {
        if self.failed {
            self.writes.clear();
            self.waiting.clear();
            return self.in_order();
        }
        if self.frozen {
            self.writes.clear();
        }
        if !self.writes.is_empty() {
            self.issued += 1;
            // Who only follows events may be told a little later.
            let urgent = self.waiting.iter().any(|output| !matches!(output, Output::Event(_)));
            let writes = std::mem::take(&mut self.writes);
            self.ready.push(Output::Persist { token: Token(self.issued), writes, urgent });
        }
        if !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            if self.outstanding() == 0 {
                self.ready.extend(waiting);
            } else if let Some((token, held)) = self.held.back_mut()
                && token.0 == self.issued
            {
                held.extend(waiting);
            } else {
                self.held.push_back((Token(self.issued), waiting));
            }
        }
        self.in_order()
    }

    fn in_order(&mut self) -> Vec<Output> {
        let mut outputs = std::mem::take(&mut self.ready);
        outputs.sort_by_key(turn);
        outputs
    }
}

/// What goes first among things that may all be done at once: the disk, and whoever waits for an answer, do not wait for all
/// else that a sync has set free. What has the same turn stays in its order.
fn turn(output: &Output) -> u8 {
    match output {
        Output::Persist { .. } | Output::Load { .. } => 0,
        Output::Answer { .. } => 1,
        Output::Send { .. }
        | Output::Publish { .. }
        | Output::Subscribe { .. }
        | Output::Unsubscribe { .. }
        | Output::Disconnect { .. } => 2,
        Output::SetTimer { .. } | Output::CallDriver { .. } | Output::Event(_) => 3,
        Output::Stop { .. } => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Happening, RequestId, Response};

    fn unsubscribe(topic: &str) -> Output {
        Output::Unsubscribe { topic: topic.into() }
    }

    fn topics(outputs: &[Output]) -> Vec<&str> {
        outputs
            .iter()
            .map(|output| match output {
                Output::Unsubscribe { topic } => topic.as_str(),
                Output::Persist { .. } => "persist",
                Output::Stop { .. } => "stop",
                _ => "other",
            })
            .collect()
    }

    #[test]
    fn the_disk_and_whoever_asked_go_first_and_the_rest_keeps_its_order() {
        let event =
            |at| Output::Event(Event { at, what: Happening::Warning { replicant: None, message: String::new() } });
        let answer = |id| Output::Answer { request: RequestId(id), answer: Ok(Response::Sites(Vec::new())) };
        let mut outbox = Outbox::default();
        outbox.write(Write::Delete { key: vec![1] });
        for output in [Output::Stop { reason: String::new() }, event(1), unsubscribe("a"), answer(1), event(2)] {
            outbox.now(output);
        }
        for output in [unsubscribe("b"), answer(2)] {
            outbox.now(output);
        }
        let wanted = [answer(1), answer(2), unsubscribe("a"), unsubscribe("b"), event(1), event(2)];
        let outputs = outbox.drain();
        let [Output::Persist { .. }, middle @ .., Output::Stop { .. }] = &outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(format!("{middle:?}"), format!("{wanted:?}"));
    }

    #[test]
    fn nothing_that_follows_a_write_leaves_before_it_is_stored() {
        let mut outbox = Outbox::default();
        outbox.after(unsubscribe("a"));
        outbox.write(Write::Delete { key: vec![1] });
        outbox.now(unsubscribe("b"));
        assert_eq!(topics(&outbox.drain()), ["persist", "b"]);
        outbox.after(unsubscribe("c"));
        assert_eq!(topics(&outbox.drain()), Vec::<&str>::new());
        outbox.write(Write::Delete { key: vec![2] });
        outbox.after(unsubscribe("d"));
        assert_eq!(topics(&outbox.drain()), ["persist"]);
        outbox.stored(Token(1));
        assert_eq!(topics(&outbox.drain()), ["a", "c"]);
        outbox.stored(Token(2));
        assert_eq!(topics(&outbox.drain()), ["d"]);
        outbox.after(unsubscribe("e"));
        assert_eq!(topics(&outbox.drain()), ["e"]);
    }

    #[test]
    fn a_record_is_written_once_in_a_step() {
        let put = |key: u8, value: u8| Write::Put { key: vec![key], value: vec![value] };
        let mut outbox = Outbox::default();
        for write in [put(1, 1), put(2, 1), put(1, 2), Write::Delete { key: vec![2] }] {
            outbox.write(write);
        }
        let [Output::Persist { writes, .. }] = &outbox.drain()[..] else { panic!("one batch") };
        assert_eq!(*writes, [put(1, 2), Write::Delete { key: vec![2] }]);
        // What was handed out is not changed any more.
        outbox.write(put(1, 3));
        let [Output::Persist { writes, .. }] = &outbox.drain()[..] else { panic!("one batch") };
        assert_eq!(*writes, [put(1, 3)]);
    }

    #[test]
    fn only_what_others_than_watchers_wait_for_is_urgent() {
        let what = Happening::Warning { replicant: None, message: String::new() };
        let event = || Output::Event(Event { at: 0, what: what.clone() });
        let urgent = |outputs: Vec<Output>| -> Vec<bool> {
            let batch =
                |output: &Output| if let Output::Persist { urgent, .. } = output { Some(*urgent) } else { None };
            outputs.iter().filter_map(batch).collect()
        };
        let mut outbox = Outbox::default();
        outbox.write(Write::Delete { key: vec![1] });
        assert_eq!(urgent(outbox.drain()), [false]);
        outbox.write(Write::Delete { key: vec![1] });
        outbox.after(event());
        assert_eq!(urgent(outbox.drain()), [false]);
        outbox.write(Write::Delete { key: vec![1] });
        outbox.after(event());
        outbox.after(unsubscribe("a"));
        assert_eq!(urgent(outbox.drain()), [true]);
    }

    #[test]
    fn a_full_disk_refuses_what_waits_and_holds_nothing_back() {
        let mut outbox = Outbox::default();
        outbox.write(Write::Delete { key: vec![1] });
        outbox.after(unsubscribe("a"));
        outbox.after(Output::Answer { request: crate::RequestId(7), answer: Ok(crate::Response::Sites(Vec::new())) });
        assert_eq!(topics(&outbox.drain()), ["persist"]);
        let refusal = RequestError::Full { message: "full".into() };
        assert_eq!(outbox.freeze(&refusal), []);
        let refused = |output: &Output| matches!(output, Output::Answer { answer: Err(RequestError::Full { .. }), .. });
        assert!(matches!(outbox.drain().as_slice(), [answer] if refused(answer)));
        outbox.write(Write::Delete { key: vec![2] });
        outbox.after(unsubscribe("b"));
        assert_eq!(topics(&outbox.drain()), ["b"]);
        outbox.thaw();
        outbox.write(Write::Delete { key: vec![3] });
        outbox.after(unsubscribe("c"));
        assert_eq!(topics(&outbox.drain()), ["persist"]);
        outbox.stored(Token(2));
        assert_eq!(topics(&outbox.drain()), ["c"]);
    }

    #[test]
    fn a_failed_disk_lets_nothing_out_but_answers_and_the_stop() {
        let mut outbox = Outbox::default();
        outbox.write(Write::Delete { key: vec![1] });
        outbox.after(unsubscribe("a"));
        outbox.after(Output::Answer { request: crate::RequestId(7), answer: Ok(crate::Response::Sites(Vec::new())) });
        outbox.drain();
        outbox.store_failed("no space");
        let outputs = outbox.drain();
        assert!(matches!(
            outputs.as_slice(),
            [Output::Answer { answer: Err(RequestError::Storage { .. }), .. }, Output::Stop { .. }]
        ));
        outbox.after(unsubscribe("late"));
        outbox.write(Write::Delete { key: vec![1] });
        assert!(outbox.drain().is_empty());
    }
}
