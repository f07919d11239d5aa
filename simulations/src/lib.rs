//! Runs the real Khufu engine on a simulated network, disk, clock and drivers.
