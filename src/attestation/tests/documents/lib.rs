//! Empty: only the dependencies' sources are used.
