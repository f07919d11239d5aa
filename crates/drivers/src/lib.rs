//! Drivers of Khufu: apply what has converged to a platform.
