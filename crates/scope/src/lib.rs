//! The scope language of Khufu: text to syntax tree to placement.
