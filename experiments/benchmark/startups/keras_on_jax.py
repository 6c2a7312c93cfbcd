"""The shortest real run with Keras on its JAX backend."""

# pyright: reportMissingImports=false, reportArgumentType=false
import keras

from experiments.benchmark.startups import script

script.reached("imports")
x_train, y_train, x_test, y_test = script.load()
keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(10, kernel_regularizer=keras.regularizers.L2(script.L2 / 2)),
    ]
)
model.compile(
    optimizer=keras.optimizers.SGD(script.LEARNING_RATE),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)


class FirstStep(keras.callbacks.Callback):
    """Notes when the first step is done."""

    def on_train_batch_end(self, batch, logs=None):
        """Called after every step."""
        if batch == 0:
            script.reached("first_step")


batches = ((x_train[rows], y_train[rows]) for rows in script.minibatches(len(y_train)))
model.fit(batches, steps_per_epoch=script.STEPS, verbose=0, callbacks=[FirstStep()])
predicted = model.predict_on_batch(x_test).argmax(axis=1)
script.finish((predicted == y_test).mean())
