"""The paper's evidence, redone: one module a figure or table, and the record that each leaves."""
