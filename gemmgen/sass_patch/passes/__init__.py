"""The SASS passes, one file each; `gemmgen.sass_patch.pass_table` lists them."""
