"""Steps replayed: what the steps before have done is done again, without asking its layers.

A step of a small network spends more time in the Python between its kernels than in them: layers
check shapes, look for buffers and make views, every time with the same result. So a workspace
remembers which functions its last steps have run, on which arrays, and of the next one a tape only
guards that it is the same: the same layers, called with the same values, and arrays from outside of
the same shapes. Then a call runs its functions at once, and backward the list of all of them.

Layers take part that say so (`Module.replayable`): all that they do to arrays goes through
`call.run`, `call.returns` and `call.make`, with arguments that depend on shapes alone, but for
parts of random keys, which are those of each step. What they observe they observe again. They are
not trusted. Two ordinary steps must have run the same functions on the same memory, arrays from
outside excepted, so that what a layer makes of these anew, by a cast for instance, ends the plan.
Then all memory is overwritten, and the plan must give the bits of the second step, outputs and
gradients alike.

The user's forward runs in every step, and values have their numbers when they are handed out: loops
and branches keep their meaning. Only where a trainer calls a model and a loss that are made of this
package's layers alone, all calls of a step are taken at once (`Tape.repeat`). Where a step turns
out to be another one, its tape becomes an ordinary one there: what was replayed has the calls that
it would have had. Hooks, rules of learning, gradients that are kept or accumulate, a debugger, and
layers that do not take part need ordinary tapes; so do steps whose gradients come from the pool,
which are large. But hooks that do all by `call.run` and `tape.run`, as that of the status of a rank
does, take part like layers (`TapeHook.replayable`).

`LAYERS_REPLAY=0` in the environment has all steps be ordinary ones, of the same bits.
"""
