//! The brain of a Khufu node as a pure state machine.
