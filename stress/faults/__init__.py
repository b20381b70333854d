"""What breaks under a program, and how to bring it about; the scenarios that use it say why.

calls     every public call that writes, and what others see of it
victim    a program that makes such calls, each in a process of its own that can be faulted
trial     one fault in one call: the victim's word against what is in the file afterwards
strace    the k-th system call of a kind fails, or kills its process
mounts    a small file system in memory; one on a loop device whose power can fail
wall      the wall clock of this program's children, in steps (libfaketime)
hostile   files that nobody should have to open
probe     every kind of call on a file that cannot be trusted
"""
