"""The release commands of `appliance`: one file each, arguments in, exit code out."""
