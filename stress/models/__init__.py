"""Models of the protocols, which Spin explores in full: `python -m stress.models --help`.

    line.pml          the line of tickets, and a worker's way through it; part of the next two
    ticket_queue.pml  the lock: reaping, doorbells, watches, handing over, claims in time
    rwlock.pml        the read-write lock, with downgrade
    lease.pml         the lease with its fencing token, up to a power failure
    work_queue.pml    the work queue with receipts
    catalogue         which models there are, how large, and their broken variants
    spin              builds a model's checker, runs it, and reads what it says
    __main__          the options and the table

Each begins with what it says and what it leaves out.
"""
