//! One running agent: which task on which core, start and stop order.
