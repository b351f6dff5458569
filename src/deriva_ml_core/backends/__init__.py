"""The backends that come with this software; a plugin may take half of one."""
